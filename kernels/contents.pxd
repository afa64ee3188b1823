"""InferTensorContents: typed elements, counted when a request is decoded and laid out as raw bytes when it is run."""

from libc.stdint cimport uint8_t

from kernels.wire cimport bytes_view

cdef enum:
    CONTENTS_FIELDS = 9  # field numbers 1 to 8; 0 is none


cdef int contents_field(int datatype) noexcept nogil
cdef int count_contents(bytes_view message, int depth, size_t* counts, size_t* string_bytes) noexcept nogil
cdef int copy_contents(bytes_view message, int datatype, uint8_t** dst) noexcept nogil
