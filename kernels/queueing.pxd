"""Puts requests into a version's queue, or refuses them; under its batcher's lock."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.request cimport request

cdef int queue_request(batcher* target, request* admitted) noexcept nogil
cdef void refuse_bytes(batcher* target, request* refused, int64_t bytes_waiting) noexcept nogil
