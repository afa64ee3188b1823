"""Writes a google.rpc.Status with a RetryInfo, the value of grpc-status-details-bin, byte by byte.

Source: google/rpc/status.proto and error_details.proto of googleapis; base64 without padding, as PROTOCOL-HTTP2.md of gRPC has
binary values.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from kernels.call cimport append_field
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.varint cimport put_varint

cdef enum:
    # google.rpc.Status, google.protobuf.Any, google.rpc.RetryInfo and google.protobuf.Duration: number << 3 | wire type
    STATUS_CODE = 0x08
    STATUS_MESSAGE = 0x12
    STATUS_DETAILS = 0x1A
    ANY_TYPE_URL = 0x0A
    ANY_VALUE = 0x12
    RETRY_DELAY = 0x0A
    DURATION_SECONDS = 0x08
    DURATION_NANOS = 0x10
    NS_PER_S = 1_000_000_000
    MAX_DURATION_BYTES = 24
    MAX_DETAIL_BYTES = 96        # the type's name, the duration, and four bytes beside
    MAX_STATUS_BYTES = 640       # a failure's text, the detail, and less than 24 bytes beside
    MAX_BASE64_BYTES = 864       # four for each three of those

cdef const char* HEADER = b"grpc-status-details-bin"
cdef const char* TYPE_URL = b"type.googleapis.com/google.rpc.RetryInfo"
cdef const char* DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef int append_retry(byte_buffer* trailing, int code, const char* text, int64_t retry_ns) noexcept nogil:
    """Add the details of a status of gRPC's to what is sent beside it. 0, or -1 without memory.

    `text` is that of a failure, UTF-8.
    """
    cdef uint8_t[MAX_STATUS_BYTES] status
    cdef uint8_t[MAX_BASE64_BYTES] encoded
    cdef size_t size = encode_base64(encoded, status, write_status(status, code, text, retry_ns))
    return append_field(trailing, <const uint8_t*> HEADER, strlen(HEADER), encoded, size)


def encode_status(int code, bytes text not None, int64_t retry_ns):
    """Return a google.rpc.Status with a RetryInfo, for a transport that makes its own headers; `text` is cut as a failure's."""
    cdef uint8_t[MAX_STATUS_BYTES] status
    cdef const char* given = text
    return (<char*> status)[:write_status(status, code, given, retry_ns)]


cdef size_t write_status(uint8_t* target, int code, const char* text, int64_t retry_ns) noexcept nogil:
    cdef uint8_t[MAX_DURATION_BYTES] duration
    cdef uint8_t[MAX_DURATION_BYTES + 2] retry
    cdef uint8_t[MAX_DETAIL_BYTES] detail
    cdef size_t duration_size = 0, retry_size, detail_size, size
    if retry_ns >= NS_PER_S:
        duration_size = write_number(duration, DURATION_SECONDS, <uint64_t> (retry_ns // NS_PER_S))
    duration_size += write_number(duration + duration_size, DURATION_NANOS, <uint64_t> (retry_ns % NS_PER_S))
    retry_size = write_bytes(retry, RETRY_DELAY, duration, duration_size)
    detail_size = write_bytes(detail, ANY_TYPE_URL, <const uint8_t*> TYPE_URL, strlen(TYPE_URL))
    detail_size += write_bytes(detail + detail_size, ANY_VALUE, retry, retry_size)
    size = write_number(target, STATUS_CODE, <uint64_t> code)
    size += write_bytes(target + size, STATUS_MESSAGE, <const uint8_t*> text,
                        min(strlen(text), <size_t> FAILURE_TEXT_BYTES - 1))
    return size + write_bytes(target + size, STATUS_DETAILS, detail, detail_size)


cdef size_t write_number(uint8_t* target, int tag, uint64_t value) noexcept nogil:
    target[0] = <uint8_t> tag
    return <size_t> (put_varint(target + 1, value) - target)


cdef size_t write_bytes(uint8_t* target, int tag, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t used = write_number(target, tag, size)
    memcpy(target + used, data, size)
    return used + size


cdef size_t encode_base64(uint8_t* target, const uint8_t* data, size_t size) noexcept nogil:
    """Write base64 without padding; return its size."""
    cdef size_t position, used = 0
    cdef uint32_t held = 0
    cdef int bits = 0
    for position in range(size):
        held = held << 8 | data[position]
        bits += 8
        while bits >= 6:
            bits -= 6
            target[used] = <uint8_t> DIGITS[held >> bits & 63]
            used += 1
        held &= 0xFF
    if bits > 0:
        target[used] = <uint8_t> DIGITS[held << (6 - bits) & 63]
        used += 1
    return used
