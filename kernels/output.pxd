"""Messages on their way out, and the pieces of a write."""

from libc.stdint cimport uint8_t

from kernels.transport_state cimport call, io_thread, outgoing

cdef void queue_outgoing(call* sender, outgoing* made) noexcept nogil
cdef void write_prefix(uint8_t* target, bint is_compressed, size_t size) noexcept nogil
cdef void add_output(io_thread* thread, const void* data, size_t size) noexcept nogil
cdef void add_outgoing(call* sender, size_t size, bint is_direct) noexcept nogil
cdef void finish_output(io_thread* thread) noexcept nogil
cdef void drop_outgoing(call* sender) noexcept nogil
