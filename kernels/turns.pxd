"""Between a version's queue and its sequences: who comes to its turn is queued, and who is done lets the next one go.

Everything here is done under the batcher's lock. But for set_closing and drop_request, the version keeps sequences.
"""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.failure cimport failure
from kernels.request cimport request
from kernels.request_queue cimport queue_level

cdef int join_turn(batcher* target, queue_level* level, request* admitted) noexcept nogil
cdef void drop_request(batcher* target, request* dropped, int64_t now_ns) noexcept nogil
cdef void drop_cancelled(batcher* target, request* dropped) noexcept nogil
cdef request* expire_turns(batcher* target, request* expired, int64_t now_ns) noexcept nogil
cdef void end_turns(batcher* target, request* batch, int64_t ended_ns, const failure* error) noexcept nogil
cdef void set_closing(batcher* target, bint is_closing) noexcept nogil
