"""When a batcher starts a batch, and what it takes for it."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.pipeline cimport buffer_set, pipeline
from kernels.request cimport request

cdef int64_t count_waiting(const batcher* target) noexcept nogil
cdef bint is_idle(batcher* target) noexcept nogil
cdef void tell_if_idle(batcher* target) noexcept nogil
cdef void wake_by(batcher* target, int64_t due_ns) noexcept nogil
cdef bint can_start(batcher* target) noexcept nogil
cdef pipeline* choose_pipeline(batcher* target) noexcept nogil
cdef void start_or_wait(batcher* target, int64_t now_ns) noexcept nogil
cdef request* take_next(batcher* target, int64_t now_ns, bint has_place, int64_t* rows) noexcept nogil
cdef buffer_set* take_set(pipeline* home) noexcept nogil
