"""Outputs on ways of their own: into shared memory, or as classes instead of elements."""

from kernels.request cimport request
from kernels.response cimport output_view
from kernels.signature cimport signature


cdef int deliver_outputs(const signature* accepted, request* member, output_view* views) noexcept nogil
