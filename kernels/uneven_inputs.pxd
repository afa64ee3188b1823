"""Gathering a batch whose requests have different shapes, and the inputs that tell the model of them."""

from libc.stdint cimport int32_t, int64_t

from kernels.failure cimport failure
from kernels.instance cimport instance
from kernels.request cimport request


cdef bint shape_input(instance* used, const request* batch, int32_t index, int64_t* shape) noexcept nogil
cdef int gather_padded(instance* used, const request* batch, int32_t index, const int64_t* shape,
                       failure* error) noexcept nogil
cdef int make_inputs(instance* used, const request* batch, failure* error) noexcept nogil
