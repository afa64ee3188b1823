"""Where in shared memory a request has a tensor: the three parameters of an input or a requested output, checked."""

from libc.stdint cimport int32_t, int64_t

from kernels.request cimport request
from kernels.session cimport tensor_spec
from kernels.shared_memory cimport region, region_table


cdef struct shared_place:
    region* home             # held by the request; NULL for a tensor that is in no shared memory
    int64_t offset           # in the region
    int64_t size


cdef int find_place(region_table* table, request* target, int32_t owner, const tensor_spec* spec,
                    shared_place* found) noexcept nogil
cdef bint places_overlap(const shared_place* one, const shared_place* other) noexcept nogil
