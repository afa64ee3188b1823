"""Protobuf's varints, written."""

from libc.stdint cimport uint8_t, uint64_t

from kernels.wire cimport HIGH_BIT


cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= HIGH_BIT:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_varint(uint8_t* dst, uint64_t value) noexcept nogil:
    """Write up to ten bytes; return the place behind them."""
    while value >= HIGH_BIT:
        dst[0] = <uint8_t> ((value & 0x7F) | HIGH_BIT)
        dst += 1
        value >>= 7
    dst[0] = <uint8_t> value
    return dst + 1
