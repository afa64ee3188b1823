"""The I/O threads: each waits for its connections, for what others send it, and for time to pass."""

from kernels.transport_state cimport io_thread, server_core

cdef int open_thread(io_thread* made, server_core* server, int index) noexcept nogil
cdef int start_thread(io_thread* made) noexcept nogil
cdef void join_thread(io_thread* used) noexcept nogil
cdef void close_thread(io_thread* used) noexcept nogil
