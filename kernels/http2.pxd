"""One HTTP/2 connection's session: frames in, calls and their messages out."""

from libc.stdint cimport uint8_t

from kernels.transport_state cimport call, connection, server_core

cdef enum:
    RESET_BURST_S = 10             # over which resets are averaged


cdef int prepare_http2(server_core* server) noexcept nogil
cdef int open_session(connection* made) noexcept nogil
cdef int receive_frames(connection* receiver, const uint8_t* data, size_t size) noexcept nogil
cdef int collect_frames(connection* sender) noexcept nogil
cdef void end_calls(connection* closed) noexcept nogil
cdef void accept_message(call* receiver) noexcept nogil
cdef void warn_leaving(connection* warned) noexcept nogil
cdef void say_leaving(connection* left) noexcept nogil
