"""Writes ModelStreamInferResponse by hand: what stands before a reply, and a message about a request that failed."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy, strlen

from kernels.call cimport append_bytes, free_buffer
from kernels.output cimport write_prefix
from kernels.transport_state cimport FRAME_PREFIX_BYTES
from kernels.varint cimport put_varint

cdef enum:
    ERROR_FIELD = 0x0A             # ModelStreamInferResponse: 1, error_message
    RESPONSE_FIELD = 0x12          # 2, infer_response
    ID_FIELD = 0x1A                # ModelInferResponse: 3, id
    MAX_VARINT_BYTES = 10
    FINAL_BYTES = 29

# A response's parameter triton_final_response, true: by it clients of Triton know a stream's last response to a request.
cdef const char* FINAL = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"


cdef int write_stream_prefix(uint8_t* prefix, size_t reply_size) noexcept nogil:
    """Write all that comes before a reply's own bytes, gRPC's prefix too; return how many bytes that is."""
    cdef int used = FRAME_PREFIX_BYTES
    prefix[used] = RESPONSE_FIELD
    used = <int> (put_varint(prefix + used + 1, FINAL_BYTES + reply_size) - prefix)
    memcpy(prefix + used, FINAL, FINAL_BYTES)
    used += FINAL_BYTES
    write_prefix(prefix, False, reply_size + used - FRAME_PREFIX_BYTES)
    return used


cdef void append_failure(byte_buffer* target, const char* reason, bytes_view id) noexcept nogil:
    """Append why a request failed, and a response of its id that is the last one; nothing without memory."""
    cdef bytes_view text = bytes_view(<const uint8_t*> reason, strlen(reason))
    cdef byte_buffer nested = byte_buffer(NULL, 0, 0)
    if append_field_bytes(target, ERROR_FIELD, text) != 0:
        return
    if id.size > 0:
        append_field_bytes(&nested, ID_FIELD, id)
    append_bytes(&nested, FINAL, FINAL_BYTES)
    append_field_bytes(target, RESPONSE_FIELD, bytes_view(nested.data, nested.size))
    free_buffer(&nested)


cdef int append_field_bytes(byte_buffer* target, int tag, bytes_view value) noexcept nogil:
    """Append a length-delimited field of one-byte tag. 0, or -1 without memory."""
    cdef uint8_t[MAX_VARINT_BYTES + 1] head
    head[0] = <uint8_t> tag
    if append_bytes(target, head, put_varint(&head[1], value.size) - &head[0]) != 0:
        return -1
    return append_bytes(target, value.data, value.size)
