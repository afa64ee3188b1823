"""A request's way into its version's queue."""

from kernels.batcher cimport batcher
from kernels.request cimport request

cdef void admit_request(batcher* target, request* admitted) noexcept nogil
