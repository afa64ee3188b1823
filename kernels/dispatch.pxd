"""All loaded model versions as the data plane sees them, and what a transport calls."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.executor cimport executor
from kernels.idempotency cimport answer_book
from kernels.parking cimport parking_lot
from kernels.request cimport request, request_pool
from kernels.response_cache cimport response_cache
from kernels.sequence_gate cimport sequence_gate
from kernels.sync cimport read_sections
from kernels.trace cimport trace_book


cdef struct engine_core:
    executor pool
    request_pool requests
    read_sections sections
    trace_book traces
    response_cache cache
    sequence_gate gate
    parking_lot lot
    answer_book keyed
    void* table              # route_table*, exchanged atomically
    void* elders             # elder_list*, likewise; NULL for none
    char apart[64]           # keeps what every request reads off the line that every request writes
    int64_t pending_bytes    # of messages that wait or run


cdef request* open_request(engine_core* core) noexcept nogil
cdef void close_request(engine_core* core, request* used) noexcept nogil
cdef void submit_request(engine_core* core, request* submitted) noexcept nogil
cdef int read_request(request* submitted) noexcept nogil
cdef void place_request(engine_core* core, request* decoded) noexcept nogil
cdef int check_deadline(request* target) noexcept nogil
cdef void withdraw_request(engine_core* core, request* unwanted) noexcept nogil
cdef void offer_request(batcher* target, request* submitted) noexcept nogil
