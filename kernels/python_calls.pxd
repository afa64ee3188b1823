"""Calls of methods that Python serves: what happens to them goes into the server's queue of events."""

from libc.stdint cimport uint8_t

from kernels.transport_state cimport call, command, event, event_queue, io_thread, method, server_core

cdef enum:
    LOW_MARK_BYTES = 16 * 1024       # of messages that wait to be sent: Python goes on below this
    HIGH_MARK_BYTES = 64 * 1024      # and waits above this


cdef int open_events(event_queue* made) noexcept nogil
cdef void close_events(event_queue* used) noexcept nogil
cdef void free_events(event_queue* used) noexcept nogil
cdef event* take_events(event_queue* source, double timeout_s) noexcept nogil
cdef void free_event(event* used) noexcept nogil
cdef int push_event(server_core* server, int kind, call* subject, uint8_t* data, size_t size) noexcept nogil
cdef void bind_python(method* made) noexcept nogil
cdef void carry_out(command* given) noexcept nogil
cdef void report_stopped(io_thread* thread) noexcept nogil
cdef void report_failure(call* failed, const char* text) noexcept nogil
