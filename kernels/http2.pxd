"""One HTTP/2 connection's session: frames in, calls and their messages out, and replies the other way."""

from libc.stdint cimport int64_t, uint8_t

from kernels.transport_state cimport byte_buffer, call, connection, outgoing, server_core

cdef extern from *:
    """
    #define FULL_TEXT "the server holds as many bytes of messages as it may"
    """
    const char* FULL_TEXT

cdef enum:
    RESET_BURST_S = 10             # over which resets are averaged


cdef int prepare_http2(server_core* server) noexcept nogil
cdef int open_session(connection* made) noexcept nogil
cdef int receive_frames(connection* receiver, const uint8_t* data, size_t size) noexcept nogil
cdef int collect_frames(connection* sender) noexcept nogil
cdef void end_calls(connection* closed) noexcept nogil
cdef void send_headers(call* sender, const byte_buffer* metadata) noexcept nogil
cdef void send_outgoing(call* sender, outgoing* made) noexcept nogil
cdef void send_status(call* sender, int code, const char* text, size_t size) noexcept nogil
cdef void fail_call(call* refused, int code, const char* text) noexcept nogil
cdef void reset_call(call* unwanted) noexcept nogil
cdef void accept_message(call* receiver) noexcept nogil
cdef void mark_dirty(connection* changed) noexcept nogil
cdef void warn_leaving(connection* warned) noexcept nogil
cdef void say_leaving(connection* left) noexcept nogil
