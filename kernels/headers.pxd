"""gRPC's headers: what a request's say of its call, and those of a reply."""

from libc.stdint cimport int64_t, uint8_t

from kernels.nghttp2 cimport nghttp2_nv
from kernels.transport_state cimport byte_buffer, call

cdef enum grpc_status:
    GRPC_OK = 0
    GRPC_CANCELLED = 1
    GRPC_UNKNOWN = 2
    GRPC_INVALID_ARGUMENT = 3
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_NOT_FOUND = 5
    GRPC_PERMISSION_DENIED = 7
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14

cdef enum:
    REPLY_FIELDS = 64

cdef void read_header(call* receiver, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size) noexcept nogil
cdef int check_headers(call* opened, const char** text) noexcept nogil
cdef size_t fill_reply(call* sender, const byte_buffer* metadata, nghttp2_nv* fields) noexcept nogil
cdef int append_encoded(byte_buffer* target, const char* text, size_t size) noexcept nogil
cdef size_t fill_status(call* sender, bint is_only, nghttp2_nv* fields) noexcept nogil
