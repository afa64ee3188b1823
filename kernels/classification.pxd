"""The classification extension: the largest elements of each row as the text "value:index" or "value:index:label"."""

from libc.stdint cimport int64_t, uint8_t

from kernels.interface cimport label_list


cdef struct text_buffer:
    uint8_t* data
    size_t size
    size_t capacity


cdef bint can_classify(int datatype) noexcept nogil
cdef int append_classes(const uint8_t* row, int64_t elements, int datatype, int64_t classes, const label_list* labels,
                        text_buffer* out) noexcept nogil
