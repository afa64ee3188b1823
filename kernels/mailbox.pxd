"""How other threads reach an I/O thread."""

from kernels.transport_state cimport command, exchange, io_thread

cdef void push_command(io_thread* thread, command* made) noexcept nogil
cdef void push_settled(io_thread* thread, exchange* settled) noexcept nogil
