"""Where a batcher's requests meet the response cache: before they are queued, and once their batch has run."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.request cimport request


cdef bint find_answer(batcher* target, int64_t serial, request* asked) noexcept nogil
cdef void keep_answers(batcher* target, request* batch) noexcept nogil
