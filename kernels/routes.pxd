"""The immutable table from what a request names, a model and a version of it, to what serves it."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.ensemble_plan cimport ensemble_plan
from kernels.parking cimport dormant


cdef struct route_key:
    const char* name
    size_t name_size
    int64_t version          # 0: what a request without a version gets
    const char* label        # instead of a version; NULL with size 0 where there is none
    size_t label_size


cdef struct route:
    route_key key            # both texts owned; a NULL name in an empty place
    batcher* target          # NULL when the version cannot serve now
    ensemble_plan* plan      # held; NULL unless the version is an ensemble
    dormant* sleeper         # without a target: where requests wait until there is one, NULL where they are refused
    char* reason             # owned; then: why


cdef struct route_table:
    size_t mask              # places are mask + 1, a power of two; at least half of them empty
    route* places


cdef route_table* create_routes(size_t count) noexcept nogil
cdef void free_routes(route_table* table) noexcept nogil
cdef int add_route(route_table* table, const route_key* key, batcher* target, ensemble_plan* plan, dormant* sleeper,
                   const char* reason) noexcept nogil
cdef const route* find_route(const route_table* table, const route_key* key) noexcept nogil
