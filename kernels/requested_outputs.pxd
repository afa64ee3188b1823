"""Which outputs a request asks for, in which order, and how each is to leave."""

from kernels.request cimport request
from kernels.signature cimport signature


cdef int bind_outputs(const signature* accepted, request* target) noexcept nogil
