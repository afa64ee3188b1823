"""gzip and deflate of single messages, bounded."""

from libc.stdint cimport uint8_t

cdef enum:
    INFLATE_OK = 0
    INFLATE_MALFORMED = 1
    INFLATE_LIMIT = 2
    INFLATE_NO_MEMORY = 3


cdef int inflate_message(const uint8_t* data, size_t size, bint is_gzip, size_t limit, uint8_t** out,
                         size_t* out_size) noexcept nogil
cdef int deflate_message(const uint8_t* data, size_t size, bint is_gzip, uint8_t** out, size_t* out_size) noexcept nogil
