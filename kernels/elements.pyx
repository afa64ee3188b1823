"""Counts and copies elements, and fills memory with one."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

from kernels.datatype cimport DT_BOOL
from kernels.failure cimport failure
from kernels.gpu_place cimport fetch_input
from kernels.request cimport bound_tensor
from kernels.session cimport tensor_spec


cdef int64_t count_elements(const tensor_spec* spec, const int64_t* shape) noexcept nogil:
    """The product of a bound tensor's dimensions, which has been checked."""
    cdef int64_t elements = 1
    cdef int32_t axis
    for axis in range(spec.rank):
        elements *= shape[axis]
    return elements


cdef int gather_tensor(const tensor_spec* spec, const bound_tensor* content, uint8_t* target,
                       failure* error) noexcept nogil:
    """Copy one request's elements from where they are. 0, or -1 with `error` set."""
    if content.size == 0:
        return 0
    if content.data == NULL:
        return fetch_input(spec, content, target, error)
    copy_numbers(target, content.data, content.size, spec.datatype)
    return 0


cdef void copy_numbers(uint8_t* target, const uint8_t* source, size_t size, int datatype) noexcept nogil:
    """Copy elements; a BOOL of any value but 0 becomes 1, since kernels may take the byte for a C++ bool."""
    cdef size_t position
    if datatype != DT_BOOL:
        memcpy(target, source, size)
        return
    for position in range(size):
        target[position] = source[position] != 0


cdef void fill_elements(uint8_t* target, size_t size, const uint8_t* element, size_t width) noexcept nogil:
    """Write an element over and over, into `size` bytes."""
    cdef size_t position = width
    cdef bint is_even = True
    for position in range(1, width):
        is_even = is_even and element[position] == element[0]
    if is_even:
        memset(target, element[0], size)
        return
    memcpy(target, element, min(size, width))
    position = width
    while position < size:
        memcpy(target + position, target, min(position, size - position))
        position *= 2
