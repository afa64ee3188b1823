"""Elements of tensors: counted, and copied from where a request has them into a batch."""

from libc.stdint cimport int64_t, uint8_t

from kernels.failure cimport failure
from kernels.request cimport bound_tensor
from kernels.session cimport tensor_spec


cdef int64_t count_elements(const tensor_spec* spec, const int64_t* shape) noexcept nogil
cdef int gather_tensor(const tensor_spec* spec, const bound_tensor* content, uint8_t* target,
                       failure* error) noexcept nogil
cdef void copy_numbers(uint8_t* target, const uint8_t* source, size_t size, int datatype) noexcept nogil
cdef void fill_elements(uint8_t* target, size_t size, const uint8_t* element, size_t width) noexcept nogil
