"""When a refused request may be tried again, as clients of gRPC read it."""

from libc.stdint cimport int64_t

from kernels.transport_state cimport byte_buffer

cdef int append_retry(byte_buffer* trailing, int code, const char* text, int64_t retry_ns) noexcept nogil
