"""Inflates and deflates one message at a time, with zlib; what a peer sends is never inflated beyond a limit."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        unsigned char* next_in
        unsigned int avail_in
        unsigned char* next_out
        unsigned int avail_out
        unsigned long total_out
    int Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_NO_FLUSH, Z_FINISH, Z_DEFAULT_COMPRESSION, Z_DEFLATED, Z_DEFAULT_STRATEGY
    int Z_MEM_ERROR
    int inflateInit2(z_stream* stream, int bits) noexcept
    int inflate(z_stream* stream, int flush) noexcept
    int inflateEnd(z_stream* stream) noexcept
    int deflateInit2(z_stream* stream, int level, int way, int bits, int memory, int strategy) noexcept
    unsigned long deflateBound(z_stream* stream, unsigned long size) noexcept
    int deflate(z_stream* stream, int flush) noexcept
    int deflateEnd(z_stream* stream) noexcept

cdef enum:
    ZLIB_BITS = 15
    GZIP_BITS = 15 + 16       # zlib's way to ask for gzip's frame
    MEMORY_LEVEL = 8
    FIRST_BYTES = 4096
    MAX_INPUT_BYTES = 0x7FFFFFFF


cdef int inflate_message(const uint8_t* data, size_t size, bint is_gzip, size_t limit, uint8_t** out,
                         size_t* out_size) noexcept nogil:
    """Inflate a whole message into a buffer that the caller frees. INFLATE_…; on failure there is no buffer."""
    cdef z_stream stream
    cdef int outcome = INFLATE_NO_MEMORY
    memset(&stream, 0, sizeof(stream))
    out[0] = NULL
    out_size[0] = 0
    if size > MAX_INPUT_BYTES:
        return INFLATE_LIMIT
    if inflateInit2(&stream, GZIP_BITS if is_gzip else ZLIB_BITS) != Z_OK:
        return INFLATE_NO_MEMORY
    stream.next_in = <unsigned char*> data
    stream.avail_in = <unsigned int> size
    outcome = inflate_all(&stream, limit, out)
    out_size[0] = stream.total_out
    inflateEnd(&stream)
    if outcome != INFLATE_OK:
        free(out[0])
        out[0] = NULL
        out_size[0] = 0
    return outcome


cdef int inflate_all(z_stream* stream, size_t limit, uint8_t** out) noexcept nogil:
    """Inflate to the stream's end, in steps that double, to one byte more than the limit at the most."""
    cdef size_t capacity = 0
    cdef uint8_t* larger
    cdef int outcome = Z_OK
    while outcome == Z_OK or outcome == Z_BUF_ERROR:
        if stream.total_out > limit:
            return INFLATE_LIMIT
        if stream.total_out == capacity:
            capacity = min(max(2 * capacity, <size_t> FIRST_BYTES), limit + 1)
            larger = <uint8_t*> realloc(out[0], capacity)
            if larger == NULL:
                return INFLATE_NO_MEMORY
            out[0] = larger
        elif outcome == Z_BUF_ERROR or stream.avail_in == 0:
            return INFLATE_MALFORMED  # cut short
        stream.next_out = out[0] + stream.total_out
        stream.avail_out = <unsigned int> (capacity - stream.total_out)
        outcome = inflate(stream, Z_NO_FLUSH)
    if outcome == Z_MEM_ERROR:
        return INFLATE_NO_MEMORY
    if outcome != Z_STREAM_END or stream.avail_in != 0:
        return INFLATE_MALFORMED
    return INFLATE_OK if stream.total_out <= limit else INFLATE_LIMIT


cdef int deflate_message(const uint8_t* data, size_t size, bint is_gzip, uint8_t** out, size_t* out_size) noexcept nogil:
    """Deflate a message into a buffer that the caller frees. 0, or -1 without memory."""
    cdef z_stream stream
    cdef unsigned long room
    memset(&stream, 0, sizeof(stream))
    if size > MAX_INPUT_BYTES or deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                                              GZIP_BITS if is_gzip else ZLIB_BITS, MEMORY_LEVEL,
                                              Z_DEFAULT_STRATEGY) != Z_OK:
        return -1
    room = deflateBound(&stream, size)
    out[0] = <uint8_t*> malloc(room)
    if out[0] == NULL:
        deflateEnd(&stream)
        return -1
    stream.next_in = <unsigned char*> data
    stream.avail_in = <unsigned int> size
    stream.next_out = out[0]
    stream.avail_out = <unsigned int> room
    deflate(&stream, Z_FINISH)
    out_size[0] = stream.total_out
    deflateEnd(&stream)
    return 0
