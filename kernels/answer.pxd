"""A request's reply from the outputs that are its own: on the wire, or kept for the next step of an ensemble."""

from libc.stdint cimport int32_t

from kernels.failure cimport failure
from kernels.instance cimport version_name
from kernels.request cimport request
from kernels.response cimport output_view, response_parameter


cdef int write_answer(request* member, const version_name* served, const output_view* views,
                      const response_parameter* parameters, int32_t n_parameters, failure* error) noexcept nogil
