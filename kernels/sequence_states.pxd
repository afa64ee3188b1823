"""The states that a run gives: one row for each request's sequence."""

from kernels.failure cimport failure
from kernels.request cimport request
from kernels.session cimport tensor_data
from kernels.signature cimport signature


cdef int keep_states(const signature* accepted, const tensor_data* results, size_t** offsets, request* batch,
                     failure* error) noexcept nogil
