"""Reads two members of a JSON object, and skips the others: of any depth, without an allocation.

What is read was verified by the gateway; what is no such object has no subject, and costs nobody anything else. Texts are
compared as the issuer wrote them, escapes and all.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from kernels.wire cimport cursor, open_cursor

cdef enum:
    NO_DIGIT = 64


cdef size_t decode_base64url(bytes_view text, uint8_t* target) noexcept nogil:
    """Write the bytes that a text stands for, three for each four of its letters; return how many, up to what is no letter."""
    cdef size_t position, written = 0
    cdef unsigned int bits = 0, count = 0, digit
    for position in range(text.size):
        digit = digit_of(text.data[position])
        if digit == NO_DIGIT:
            break
        bits = bits << 6 | digit
        count += 6
        if count >= 8:
            count -= 8
            target[written] = <uint8_t> (bits >> count & 0xFF)
            written += 1
    return written


cdef inline unsigned int digit_of(uint8_t letter) noexcept nogil:
    if c'A' <= letter <= c'Z':
        return letter - c'A'
    if c'a' <= letter <= c'z':
        return letter - c'a' + 26
    if c'0' <= letter <= c'9':
        return letter - c'0' + 52
    if letter == c'-' or letter == c'+':
        return 62
    if letter == c'_' or letter == c'/':
        return 63
    return NO_DIGIT


cdef token_subject find_subject(bytes_view claims) noexcept nogil:
    """Find the members `iss` and `sub` of an object, where they are texts; the last of each, as parsers have it."""
    cdef token_subject found
    cdef cursor place = open_cursor(claims)
    cdef bytes_view name, value
    found.issuer = found.subject = bytes_view(NULL, 0)
    if not take(&place, c'{'):
        return found
    while read_text(&place, &name) and take(&place, c':'):
        value = bytes_view(NULL, 0)
        if not read_text(&place, &value) and not skip_value(&place):
            break
        if name.size == 3 and memcmp(name.data, b"iss", 3) == 0:
            found.issuer = value
        elif name.size == 3 and memcmp(name.data, b"sub", 3) == 0:
            found.subject = value
        if not take(&place, c','):
            break
    if not take(&place, c'}'):
        found.issuer = found.subject = bytes_view(NULL, 0)
    return found


cdef bint take(cursor* place, uint8_t wanted) noexcept nogil:
    """Step over white space and one letter, if that comes next."""
    while place.at != place.end and place.at[0] in (c' ', c'\t', c'\r', c'\n'):
        place.at += 1
    if place.at == place.end or place.at[0] != wanted:
        return False
    place.at += 1
    return True


cdef bint read_text(cursor* place, bytes_view* text) noexcept nogil:
    """Read a text between quotes; False, where no text comes next or none ends."""
    cdef const uint8_t* start
    if not take(place, c'"'):
        return False
    start = place.at
    while place.at != place.end and place.at[0] != c'"':
        # What follows a backslash ends no text.
        place.at += 2 if place.at[0] == c'\\' and place.at + 1 != place.end else 1
    if place.at == place.end:
        return False
    text[0] = bytes_view(start, place.at - start)
    place.at += 1
    return True


cdef bint skip_value(cursor* place) noexcept nogil:
    """Step over anything else up to the comma or brace behind it: brackets are counted, texts are no structure."""
    cdef bytes_view text
    cdef size_t depth = 0
    cdef uint8_t letter
    while place.at != place.end:
        letter = place.at[0]
        if letter == c'"':
            if not read_text(place, &text):
                return False
            continue
        if depth == 0 and (letter == c',' or letter == c'}'):
            return True
        if letter == c'{' or letter == c'[':
            depth += 1
        elif letter == c'}' or letter == c']':
            depth -= 1
        place.at += 1
    return False
