"""Listening sockets, and how their connections reach the I/O threads."""

from kernels.transport_state cimport connection, io_thread, listener

cdef void watch_listeners(io_thread* thread) noexcept nogil
cdef void close_listeners(io_thread* thread) noexcept nogil
cdef void accept_connections(io_thread* thread, listener* source) noexcept nogil
cdef void adopt_connection(io_thread* thread, connection* adopted) noexcept nogil
