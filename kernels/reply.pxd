"""Replies: what a call sends, and how it ends."""

from libc.stdint cimport uint8_t

from kernels.nghttp2 cimport nghttp2_data_source, nghttp2_frame, nghttp2_session
from kernels.transport_state cimport byte_buffer, call, connection, outgoing

cdef extern from *:
    """
    #define FULL_TEXT "the server holds as many bytes of messages as it may"
    """
    const char* FULL_TEXT

cdef enum:
    FRAME_PIECES = 8                   # of the output, left for one frame: heads, prefixes, parts of messages
    FRAME_ROOM_BYTES = 32 * 1024       # left in the output: a frame of 16 KiB and its header fit


cdef void send_headers(call* sender, const byte_buffer* metadata) noexcept nogil
cdef void send_outgoing(call* sender, outgoing* made) noexcept nogil
cdef void send_status(call* sender, int code, const char* text, size_t size) noexcept nogil
cdef void fail_call(call* refused, int code, const char* text) noexcept nogil
cdef void reset_call(call* unwanted) noexcept nogil
cdef void mark_dirty(connection* changed) noexcept nogil
cdef int on_send_data(nghttp2_session* session, nghttp2_frame* frame, const uint8_t* framehd, size_t length,
                      nghttp2_data_source* source, void* user_data) noexcept nogil
cdef int on_frame_send(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) noexcept nogil
cdef int on_frame_not_send(nghttp2_session* session, const nghttp2_frame* frame, int error,
                           void* user_data) noexcept nogil
