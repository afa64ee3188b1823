"""Tensors that requests have in memory of GPUs: bound where they are, or fetched from there."""

from libc.stdint cimport int32_t, uint8_t

from kernels.device cimport device
from kernels.failure cimport failure
from kernels.request cimport bound_tensor, request
from kernels.session cimport tensor_spec


cdef bint stays_on_gpu(const tensor_spec* spec, const bound_tensor* given) noexcept nogil
cdef void* find_input_place(const device* place, const tensor_spec* spec, const bound_tensor* given) noexcept nogil
cdef int fetch_input(const tensor_spec* spec, const bound_tensor* given, uint8_t* target, failure* error) noexcept nogil
cdef void* find_output_place(const device* place, const request* alone, int32_t output, int32_t n_inputs,
                             size_t size) noexcept nogil
