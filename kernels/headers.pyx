"""Reads a request's headers as they come, and makes the fields of replies; everything that gRPC adds to HTTP/2's.

Source: PROTOCOL-HTTP2.md of gRPC.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from kernels.call cimport append_bytes, append_field
from kernels.nghttp2 cimport NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE
from kernels.sync cimport multiply_overflows
from kernels.transport_state cimport (
    DEFLATE, GZIP, IDENTITY, REQUEST_ID_BYTES, UNKNOWN_ENCODING, VERSION_BYTES, method, server_core,
)

cdef extern from "<string.h>" nogil:
    void* memmem(const void* data, size_t size, const void* wanted, size_t wanted_size) noexcept

cdef enum:
    FIELD_OVERHEAD_BYTES = 32      # of a field in HTTP/2's own count of header bytes
    MAX_TIMEOUT_DIGITS = 8

cdef const char** STATUS_TEXTS = [
    b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12", b"13", b"14", b"15", b"16"]


# ---- the request's


cdef void read_header(call* receiver, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size) noexcept nogil:
    """Take one field of a request's headers; pseudo headers come first, so the method is known for the others.

    Trailers, which come when the call is open, are only counted.
    """
    cdef server_core* server = receiver.thread.server
    receiver.header_bytes += name_size + value_size + FIELD_OVERHEAD_BYTES
    receiver.header_fields += 1
    if receiver.is_open:
        return
    if (receiver.header_bytes > server.limits.max_header_bytes
            or receiver.header_fields > server.limits.max_header_fields):
        receiver.too_many_headers = True
        return
    if name[0] == c':':
        read_pseudo(receiver, name, name_size, value, value_size)
    elif not read_reserved(receiver, name, name_size, value, value_size) and receiver.target.keeps_metadata:
        if append_field(&receiver.metadata, name, name_size, value, value_size) != 0:
            receiver.too_many_headers = True


cdef void read_pseudo(call* receiver, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size) noexcept nogil:
    if name_size == 5 and memcmp(name, b":path", 5) == 0:
        find_method(receiver, value, value_size)
    elif name_size == 7 and memcmp(name, b":method", 7) == 0:
        receiver.is_post = value_size == 4 and memcmp(value, b"POST", 4) == 0


cdef void find_method(call* receiver, const uint8_t* path, size_t size) noexcept nogil:
    cdef server_core* server = receiver.thread.server
    cdef const method* candidate
    cdef int index
    for index in range(server.n_methods):
        candidate = &server.methods[index]
        if candidate.path_size == size and memcmp(candidate.path, path, size) == 0:
            receiver.target = candidate
            return
    # Python looks the path up; it is the first field of the metadata.
    if append_field(&receiver.metadata, <const uint8_t*> b":path", 5, path, size) != 0:
        receiver.too_many_headers = True


cdef bint read_reserved(call* receiver, const uint8_t* name, size_t name_size, const uint8_t* value,
                        size_t value_size) noexcept nogil:
    """Take a field that means something to the transport; True when it is no metadata of the call's."""
    if name_size == 2 and memcmp(name, b"te", 2) == 0:
        return True
    if name_size == 12:
        if memcmp(name, b"content-type", 12) == 0:
            receiver.is_grpc = is_grpc_type(value, value_size)
            return True
        if memcmp(name, b"grpc-timeout", 12) == 0:
            receiver.bad_timeout = read_timeout(receiver, value, value_size) != 0
            return True
    elif name_size == 13 and memcmp(name, b"grpc-encoding", 13) == 0:
        receiver.encoding = read_encoding(value, value_size)
        return True
    elif name_size == 20:
        if memcmp(name, b"grpc-accept-encoding", 20) == 0:
            receiver.accepted = read_accepted(value, value_size)
            return True
    if receiver.target.version_header != NULL:
        read_named(receiver, name, name_size, value, value_size)
    return False


cdef void read_named(call* receiver, const uint8_t* name, size_t name_size, const uint8_t* value,
                     size_t value_size) noexcept nogil:
    """Keep the fields that a bound method was told to look for."""
    cdef const method* target = receiver.target
    if (name_size == target.version_header_size and value_size <= VERSION_BYTES
            and memcmp(name, target.version_header, name_size) == 0):
        memcpy(receiver.version, value, value_size)
        receiver.version_size = value_size
    elif (name_size == target.request_id_header_size and value_size <= REQUEST_ID_BYTES
            and memcmp(name, target.request_id_header, name_size) == 0):
        memcpy(receiver.request_id, value, value_size)
        receiver.request_id_size = value_size
    elif name_size == 17 and memcmp(name, b"triton_grpc_error", 17) == 0:
        # Triton's header; it counts on streams.
        receiver.ends_on_failure = value_size == 4 and memcmp(value, b"true", 4) == 0
    elif name_size == 15 and memcmp(name, b"idempotency-key", 15) == 0:
        receiver.n_keys += 1
        if append_bytes(&receiver.key, value, value_size) != 0:
            receiver.too_many_headers = True
    elif (target.keeps_identity or receiver.thread.server.asks_permits) and is_identity(name, name_size):
        if append_field(&receiver.metadata, name, name_size, value, value_size) != 0:
            receiver.too_many_headers = True


cdef bint is_identity(const uint8_t* name, size_t size) noexcept nogil:
    """Whether a field says for whom a gateway speaks; service/headers.py has both."""
    return ((size == 23 and memcmp(name, b"x-forwarded-client-cert", 23) == 0)
            or (size == 12 and memcmp(name, b"sluice-token", 12) == 0))


cdef bint is_grpc_type(const uint8_t* value, size_t size) noexcept nogil:
    """application/grpc, alone or with a suffix (+proto) or parameters (;…)."""
    return size >= 16 and memcmp(value, b"application/grpc", 16) == 0 and (
        size == 16 or value[16] == c'+' or value[16] == c';')


cdef int read_timeout(call* receiver, const uint8_t* value, size_t size) noexcept nogil:
    """Turn a timeout into the call's deadline: up to eight digits and a unit. 0, or -1 when it is none."""
    cdef int64_t number = 0, unit, span
    cdef size_t position
    if size < 2 or size > MAX_TIMEOUT_DIGITS + 1:
        return -1
    for position in range(size - 1):
        if value[position] < c'0' or value[position] > c'9':
            return -1
        number = number * 10 + (value[position] - c'0')
    unit = unit_ns(value[size - 1])
    if unit == 0:
        return -1
    if multiply_overflows(number, unit, &span) or span > INT64_MAX - receiver.thread.now_ns:
        return 0  # beyond the clock: no deadline
    receiver.deadline_ns = receiver.thread.now_ns + span
    return 0


cdef int64_t unit_ns(uint8_t unit) noexcept nogil:
    if unit == c'n':
        return 1
    if unit == c'u':
        return 1000
    if unit == c'm':
        return 1000000
    if unit == c'S':
        return 1000000000
    if unit == c'M':
        return 60000000000
    if unit == c'H':
        return 3600000000000
    return 0


cdef int read_encoding(const uint8_t* value, size_t size) noexcept nogil:
    if size == 8 and memcmp(value, b"identity", 8) == 0:
        return IDENTITY
    if size == 4 and memcmp(value, b"gzip", 4) == 0:
        return GZIP
    if size == 7 and memcmp(value, b"deflate", 7) == 0:
        return DEFLATE
    return UNKNOWN_ENCODING


cdef int read_accepted(const uint8_t* value, size_t size) noexcept nogil:
    """What the peer takes, as bits; a name within another one is no encoding that anybody has."""
    cdef int accepted = 1 << IDENTITY
    if memmem(value, size, b"gzip", 4) != NULL:
        accepted |= 1 << GZIP
    if memmem(value, size, b"deflate", 7) != NULL:
        accepted |= 1 << DEFLATE
    return accepted


cdef int check_headers(call* opened, const char** text) noexcept nogil:
    """Return the gRPC status that a call's headers deserve, with its text."""
    if opened.too_many_headers:
        text[0] = b"the call's metadata is larger than this server takes"
        return GRPC_RESOURCE_EXHAUSTED
    if opened.bad_timeout:
        text[0] = b"grpc-timeout is no number of up to eight digits with a unit of H, M, S, m, u or n"
        return GRPC_INTERNAL
    if opened.encoding == UNKNOWN_ENCODING:
        text[0] = b"grpc-encoding is unknown; expected identity, deflate or gzip"
        return GRPC_UNIMPLEMENTED
    return GRPC_OK


# ---- the reply's


cdef void set_field(nghttp2_nv* target, const char* name, size_t name_size, const uint8_t* value,
                    size_t value_size) noexcept nogil:
    target.name = <uint8_t*> name
    target.namelen = name_size
    target.value = <uint8_t*> value
    target.valuelen = value_size
    # Names and values are literals or outlive the call.
    target.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE


cdef size_t fill_reply(call* sender, const byte_buffer* metadata, nghttp2_nv* fields) noexcept nogil:
    """Fill in the headers of a reply with messages; return their count. nghttp2 copies what lies in `metadata`."""
    set_field(&fields[0], b":status", 7, <const uint8_t*> b"200", 3)
    set_field(&fields[1], b"content-type", 12, <const uint8_t*> b"application/grpc", 16)
    set_field(&fields[2], b"grpc-accept-encoding", 20, <const uint8_t*> b"identity, deflate, gzip", 23)
    if sender.reply_encoding == IDENTITY:
        return fill_metadata(metadata, fields, 3)
    if sender.reply_encoding == GZIP:
        set_field(&fields[3], b"grpc-encoding", 13, <const uint8_t*> b"gzip", 4)
    else:
        set_field(&fields[3], b"grpc-encoding", 13, <const uint8_t*> b"deflate", 7)
    return fill_metadata(metadata, fields, 4)


cdef int append_encoded(byte_buffer* target, const char* text, size_t size) noexcept nogil:
    """Append a status's text as grpc-message has it: printable ASCII but for the percent sign, all else as %XX."""
    cdef const char* digits = b"0123456789ABCDEF"
    cdef char[3] code
    cdef size_t position
    cdef uint8_t byte
    code[0] = c'%'
    for position in range(size):
        byte = <uint8_t> text[position]
        if 0x20 <= byte <= 0x7E and byte != c'%':
            code[1] = <char> byte
            if append_bytes(target, &code[1], 1) != 0:
                return -1
            continue
        code[1] = digits[byte >> 4]
        code[2] = digits[byte & 15]
        if append_bytes(target, code, 3) != 0:
            return -1
    return 0


cdef size_t fill_status(call* sender, bint is_only, nghttp2_nv* fields) noexcept nogil:
    """Fill in a reply's trailers, which are all that it has when `is_only`; return their count."""
    cdef const char* code = STATUS_TEXTS[sender.status]
    cdef size_t count = 0
    if is_only:
        set_field(&fields[0], b":status", 7, <const uint8_t*> b"200", 3)
        set_field(&fields[1], b"content-type", 12, <const uint8_t*> b"application/grpc", 16)
        count = 2
    set_field(&fields[count], b"grpc-status", 11, <const uint8_t*> code, 2 if sender.status > 9 else 1)
    count += 1
    if sender.status_text.size > 0:
        set_field(&fields[count], b"grpc-message", 12, sender.status_text.data, sender.status_text.size)
        fields[count].flags = 0
        count += 1
    return fill_metadata(&sender.trailing, fields, count)


cdef size_t fill_metadata(const byte_buffer* metadata, nghttp2_nv* fields, size_t count) noexcept nogil:
    """Append the fields of a buffer; what does not fit any more is left out (Python bounds what it gives)."""
    cdef size_t position = 0
    cdef uint32_t[2] sizes
    while metadata != NULL and position < metadata.size and count < REPLY_FIELDS:
        memcpy(sizes, metadata.data + position, sizeof(sizes))
        position += sizeof(sizes)
        set_field(&fields[count], <const char*> metadata.data + position, sizes[0],
                  metadata.data + position + sizes[0], sizes[1])
        fields[count].flags = 0
        position += sizes[0] + sizes[1]
        count += 1
    return count
