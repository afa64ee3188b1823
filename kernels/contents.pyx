"""Walks InferTensorContents twice: to count its elements, and later to lay them out as raw bytes.

Nothing is kept per element between the walks, so that a message cannot cost more memory than its own size.
"""

from libc.stdint cimport INT8_MAX, INT8_MIN, INT16_MAX, INT16_MIN, UINT8_MAX, UINT16_MAX
from libc.stdint cimport int8_t, int16_t, int32_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kernels.datatype cimport *
from kernels.wire cimport *

cdef enum:  # field numbers
    BOOL_CONTENTS = 1
    INT_CONTENTS = 2
    INT64_CONTENTS = 3
    UINT_CONTENTS = 4
    UINT64_CONTENTS = 5
    FP32_CONTENTS = 6
    FP64_CONTENTS = 7
    BYTES_CONTENTS = 8


cdef int contents_field(int datatype) noexcept nogil:
    """Return the number of the field that carries a datatype, 0 for those that only travel raw."""
    if datatype == DT_BOOL:
        return BOOL_CONTENTS
    if datatype in (DT_INT8, DT_INT16, DT_INT32):
        return INT_CONTENTS
    if datatype == DT_INT64:
        return INT64_CONTENTS
    if datatype in (DT_UINT8, DT_UINT16, DT_UINT32):
        return UINT_CONTENTS
    if datatype == DT_UINT64:
        return UINT64_CONTENTS
    if datatype == DT_FP32:
        return FP32_CONTENTS
    if datatype == DT_FP64:
        return FP64_CONTENTS
    return BYTES_CONTENTS if datatype == DT_BYTES else 0


cdef inline uint32_t element_wire_type(uint32_t number) noexcept nogil:
    """Return the wire type of one element that is not packed."""
    if number == FP32_CONTENTS:
        return FIXED32
    if number == FP64_CONTENTS:
        return FIXED64
    return DELIMITED if number == BYTES_CONTENTS else VARINT


cdef int count_varints(bytes_view packed, size_t* count) noexcept nogil:
    cdef cursor place = open_cursor(packed)
    cdef uint64_t bits = 0
    while place.at != place.end:
        if place.end - place.at >= 8 and only_low_bytes(place.at):
            place.at += 8
            count[0] += 8
        elif read_varint(&place, &bits) == DECODE_OK:
            count[0] += 1
        else:
            return DECODE_MALFORMED
    return DECODE_OK


cdef int count_packed(uint32_t number, bytes_view packed, size_t* count) noexcept nogil:
    cdef size_t width = 4 if number == FP32_CONTENTS else 8
    if number < FP32_CONTENTS:
        return count_varints(packed, count)
    count[0] += packed.size // width
    return DECODE_OK if packed.size % width == 0 else DECODE_MALFORMED


cdef int count_contents(bytes_view message, int depth, size_t* counts, size_t* string_bytes) noexcept nogil:
    """Check one occurrence of the field `contents` and add its elements to `counts`, by field number."""
    cdef cursor place = open_cursor(message)
    cdef field item
    cdef uint32_t number, wire_type
    while place.at != place.end:
        if read_field(&place, &item, depth) != DECODE_OK:
            return DECODE_MALFORMED
        number = item.tag >> 3
        wire_type = item.tag & 7
        if number > BYTES_CONTENTS:
            continue
        if wire_type == element_wire_type(number):
            counts[number] += 1
            string_bytes[0] += item.span.size if number == BYTES_CONTENTS else 0
        elif wire_type == DELIMITED and count_packed(number, item.span, &counts[number]) != DECODE_OK:
            return DECODE_MALFORMED
    return DECODE_OK


cdef inline int store(uint8_t** dst, const void* value, size_t size) noexcept nogil:
    memcpy(dst[0], value, size)
    dst[0] += size
    return DECODE_OK


cdef inline int store_varint(uint64_t bits, int datatype, uint8_t** dst) noexcept nogil:
    """Write one element; a 32-bit field has lost the upper half of its varint by then, as in protobuf."""
    cdef int32_t value = <int32_t> <uint32_t> bits
    cdef uint8_t truth = bits != 0
    if datatype == DT_BOOL:
        return store(dst, &truth, 1)
    if datatype in (DT_INT64, DT_UINT64):
        return store(dst, &bits, 8)
    if datatype in (DT_INT32, DT_UINT32):
        return store(dst, &value, 4)
    if datatype == DT_INT16:
        return store(dst, &value, 2) if INT16_MIN <= value <= INT16_MAX else CONTENTS_RANGE
    if datatype == DT_INT8:
        return store(dst, &value, 1) if INT8_MIN <= value <= INT8_MAX else CONTENTS_RANGE
    if datatype == DT_UINT16:
        return store(dst, &value, 2) if <uint32_t> value <= UINT16_MAX else CONTENTS_RANGE
    return store(dst, &value, 1) if <uint32_t> value <= UINT8_MAX else CONTENTS_RANGE


cdef int store_packed_varints(bytes_view packed, int datatype, uint8_t** dst) noexcept nogil:
    cdef cursor place = open_cursor(packed)
    cdef uint64_t bits = 0
    while place.at != place.end:
        if read_varint(&place, &bits) != DECODE_OK:
            return DECODE_MALFORMED
        if store_varint(bits, datatype, dst) != DECODE_OK:
            return CONTENTS_RANGE
    return DECODE_OK


cdef int store_bytes(bytes_view element, uint8_t** dst) noexcept nogil:
    cdef uint32_t size = <uint32_t> element.size
    store(dst, &size, 4)
    return store(dst, element.data, element.size)


cdef int store_field(const field* item, int datatype, uint8_t** dst) noexcept nogil:
    """Write the elements of one field that carries the datatype, packed or single."""
    cdef uint32_t wire_type = item.tag & 7
    if wire_type == VARINT:
        return store_varint(item.bits, datatype, dst)
    if wire_type != DELIMITED:
        return store(dst, &item.bits, datatype_size(datatype))
    if datatype == DT_BYTES:
        return store_bytes(item.span, dst)
    if datatype in (DT_FP32, DT_FP64):
        return store(dst, item.span.data, item.span.size)
    return store_packed_varints(item.span, datatype, dst)


cdef int copy_contents(bytes_view message, int datatype, uint8_t** dst) noexcept nogil:
    """Write the elements of a datatype in raw layout and advance `dst`; `message` has been counted before."""
    cdef cursor place = open_cursor(message)
    cdef uint32_t number = <uint32_t> contents_field(datatype)
    cdef field item
    cdef int status
    while place.at != place.end:
        if read_field(&place, &item, MAX_DEPTH) != DECODE_OK:
            return DECODE_MALFORMED
        if item.tag >> 3 != number:
            continue
        if item.tag & 7 not in (DELIMITED, element_wire_type(number)):
            continue
        status = store_field(&item, datatype, dst)
        if status != DECODE_OK:
            return status
    return DECODE_OK
