"""What time brings about on connections."""

from kernels.transport_state cimport io_thread

cdef enum:
    SWEEP_MS = 200     # between two looks: how late a timeout may be


cdef void sweep_connections(io_thread* thread) noexcept nogil
