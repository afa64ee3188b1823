"""What other threads give an I/O thread: lock-free lists, and one wake for as many as come while it sleeps."""

from libc.stdint cimport uint64_t

from kernels.sockets cimport write
from kernels.sync cimport int_exchange, int_load, list_push
from kernels.transport_state cimport command, exchange, io_thread


cdef void push_command(io_thread* thread, command* made) noexcept nogil:
    """Give a thread something to do; it frees the command. From any thread."""
    list_push(&thread.commands, made)
    wake_thread(thread)


cdef void push_settled(io_thread* thread, exchange* settled) noexcept nogil:
    """Give a settled exchange back to its thread. From any thread."""
    list_push(&thread.settled, settled)
    wake_thread(thread)


cdef void wake_thread(io_thread* thread) noexcept nogil:
    """End the thread's sleep: one of many who find it asleep writes, the others and those who find it awake do not."""
    cdef uint64_t one = 1
    if int_load(&thread.is_asleep) and int_exchange(&thread.is_asleep, 0):
        write(thread.wake, &one, sizeof(one))
