"""What a stream answers: ModelStreamInferResponse around a reply's bytes, which are not looked at, or instead of them."""

from libc.stdint cimport uint8_t

from kernels.codec cimport bytes_view
from kernels.transport_state cimport byte_buffer

cdef int write_stream_prefix(uint8_t* prefix, size_t reply_size) noexcept nogil
cdef void append_failure(byte_buffer* target, const char* reason, bytes_view id) noexcept nogil
