"""How the C library aligns memory, for what is to lie aligned somewhere in the midst of a block."""

cdef enum:
    WORD_BYTES = 16      # malloc's blocks begin at multiples of it


cdef inline size_t align(size_t place) noexcept nogil:
    """The first aligned place that is not before `place`."""
    return (place + WORD_BYTES - 1) & ~(<size_t> WORD_BYTES - 1)


cdef inline size_t shift_for(size_t place) noexcept nogil:
    """How far from the beginning of a block something must begin for its byte `place` to be aligned."""
    return (WORD_BYTES - place % WORD_BYTES) % WORD_BYTES
