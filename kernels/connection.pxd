"""One connection's socket: its birth, its handshake, what it reads and writes, its end."""

from kernels.transport_state cimport connection, io_thread


cdef connection* create_connection(int descriptor, bint has_tls) noexcept nogil
cdef void discard_connection(connection* unused) noexcept nogil
cdef int begin_connection(connection* made, io_thread* thread) noexcept nogil
cdef void read_connection(connection* reader) noexcept nogil
cdef void mark_unread(connection* reader) noexcept nogil
cdef void write_connection(connection* writer) noexcept nogil
cdef void close_connection(connection* closed) noexcept nogil
cdef void free_connection(connection* closed) noexcept nogil
cdef void prove_connection(connection* proven) noexcept nogil
