"""Protobuf's wire format, read in place: a cursor that cannot leave its span, fields, varints, UTF-8.

Accepts and refuses what upb does, the parser inside protobuf's Python package. All of it is inline: a field is read in
a few nanoseconds, and a call would double that. Errors are the codes below; nothing is allocated, nothing is copied.
"""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the kernels copy fixed-width values as they lie on the wire, which is little-endian"
    #endif
    """

cdef enum:
    DECODE_OK = 0
    DECODE_MALFORMED = 1  # protobuf's own parser would refuse it too
    DECODE_LIMIT = 2      # more entries than MAX_ENTRIES, or a message over 2 GiB
    DECODE_NO_MEMORY = 3
    CONTENTS_RANGE = 4    # a typed value does not fit the tensor's datatype

cdef enum:
    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    START_GROUP = 3
    END_GROUP = 4
    FIXED32 = 5

cdef enum:
    MAX_DEPTH = 100       # levels of submessages and groups together, upb's default
    MAX_VARINT_BITS = 70  # ten bytes; the bits over 64 are dropped
    MAX_TAG_BYTES = 5
    HIGH_BIT = 0x80

cdef enum:
    SURROGATE_FIRST = 0xD800
    SURROGATE_LAST = 0xDFFF
    CODE_POINT_LAST = 0x10FFFF


cdef struct bytes_view:
    const uint8_t* data
    size_t size


cdef struct cursor:
    const uint8_t* at
    const uint8_t* end


cdef struct field:
    uint32_t tag      # number << 3 | wire type; never of number 0
    uint64_t bits     # the value of a varint or of a fixed-width field, else 0
    bytes_view span   # the value of a length-delimited field, else empty


cdef inline cursor open_cursor(bytes_view span) noexcept nogil:
    cdef cursor opened
    opened.at = span.data
    opened.end = span.data + span.size
    return opened


cdef inline const uint8_t* read_long_varint(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Return the place behind a varint of any length, or NULL."""
    cdef uint64_t result = 0
    cdef uint64_t byte
    cdef int shift = 0
    while at != end and shift < MAX_VARINT_BITS:
        byte = at[0]
        at += 1
        result |= (byte & (1 if shift == 63 else 0x7F)) << shift
        if byte < HIGH_BIT:
            value[0] = result
            return at
        shift += 7
    return NULL


cdef inline int read_varint(cursor* place, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef const uint8_t* behind
    if place.at != place.end and place.at[0] < HIGH_BIT:
        value[0] = place.at[0]
        place.at += 1
        return DECODE_OK
    behind = read_long_varint(place.at, place.end, &result)
    if behind == NULL:
        return DECODE_MALFORMED
    value[0] = result
    place.at = behind
    return DECODE_OK


cdef inline int read_tag(cursor* place, uint32_t* tag) noexcept nogil:
    """Read a tag: at most five bytes and 32 bits, and no field is numbered 0."""
    cdef const uint8_t* start = place.at
    cdef uint64_t value = 0
    if read_varint(place, &value) != DECODE_OK or place.at - start > MAX_TAG_BYTES:
        return DECODE_MALFORMED
    if value > UINT32_MAX or value < 8:
        return DECODE_MALFORMED
    tag[0] = <uint32_t> value
    return DECODE_OK


cdef inline int read_span(cursor* place, bytes_view* span) noexcept nogil:
    cdef uint64_t size = 0
    if read_varint(place, &size) != DECODE_OK or size > <uint64_t> (place.end - place.at):
        return DECODE_MALFORMED
    span.data = place.at
    span.size = size
    place.at += size
    return DECODE_OK


cdef inline int read_fixed(cursor* place, size_t size, uint64_t* bits) noexcept nogil:
    if <size_t> (place.end - place.at) < size:
        return DECODE_MALFORMED
    bits[0] = 0
    memcpy(bits, place.at, size)
    place.at += size
    return DECODE_OK


cdef inline int read_value(cursor* place, field* item) noexcept nogil:
    """Read what follows the tag of anything but a group."""
    cdef uint32_t wire_type = item.tag & 7
    if wire_type == DELIMITED:
        return read_span(place, &item.span)
    if wire_type == VARINT:
        return read_varint(place, &item.bits)
    if wire_type == FIXED32:
        return read_fixed(place, 4, &item.bits)
    if wire_type == FIXED64:
        return read_fixed(place, 8, &item.bits)
    return DECODE_MALFORMED


cdef inline const uint8_t* skip_group(const uint8_t* at, const uint8_t* end, uint32_t tag, int depth) noexcept nogil:
    """Return the place behind a group whose start tag was just read, or NULL; `depth` levels may still open."""
    cdef uint32_t[MAX_DEPTH] opened
    cdef int level = 0
    cdef cursor place
    cdef field item
    place.at = at
    place.end = end
    item.tag = tag
    while True:
        if item.tag & 7 == START_GROUP:
            if level == depth:
                return NULL
            opened[level] = item.tag >> 3
            level += 1
        elif item.tag & 7 == END_GROUP:
            if opened[level - 1] != item.tag >> 3:
                return NULL
            level -= 1
        elif read_value(&place, &item) != DECODE_OK:
            return NULL
        if level == 0:
            return place.at
        if read_tag(&place, &item.tag) != DECODE_OK:
            return NULL


cdef inline int read_field(cursor* place, field* item, int depth) noexcept nogil:
    """Read one field, or skip one group, of which `depth` levels may open; a group is never a known field here."""
    cdef const uint8_t* behind
    item.bits = 0
    item.span.data = place.at
    item.span.size = 0
    if read_tag(place, &item.tag) != DECODE_OK:
        return DECODE_MALFORMED
    if item.tag & 7 != START_GROUP:
        return read_value(place, item)
    behind = skip_group(place.at, place.end, item.tag, depth)
    if behind == NULL:
        return DECODE_MALFORMED
    place.at = behind
    return DECODE_OK


cdef inline bint only_low_bytes(const uint8_t* at) noexcept nogil:
    """Say whether none of the eight bytes has its high bit set: eight ASCII characters, or eight short varints."""
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word & 0x8080808080808080ULL == 0


cdef inline const uint8_t* skip_character(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return the place behind a character of two to four bytes, or NULL: cut, overlong, surrogate or out of range."""
    cdef uint32_t head = at[0]
    cdef int size = 2 if head >> 5 == 0b110 else 3 if head >> 4 == 0b1110 else 4 if head >> 3 == 0b11110 else 0
    cdef uint32_t point = head & (0xFFu >> (size + 1))
    cdef int place
    if size == 0 or end - at < size:
        return NULL
    for place in range(1, size):
        if at[place] >> 6 != 0b10:
            return NULL
        point = point << 6 | (at[place] & 0x3F)
    if point < (0x80 if size == 2 else 0x800 if size == 3 else 0x10000) or point > CODE_POINT_LAST:
        return NULL
    if SURROGATE_FIRST <= point <= SURROGATE_LAST:
        return NULL
    return at + size


cdef inline bint is_utf8(bytes_view text) noexcept nogil:
    cdef const uint8_t* at = text.data
    cdef const uint8_t* end = text.data + text.size
    while at != end:
        if end - at >= 8 and only_low_bytes(at):
            at += 8
        elif at[0] < HIGH_BIT:
            at += 1
        else:
            at = skip_character(at, end)
            if at == NULL:
                return False
    return True
