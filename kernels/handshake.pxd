"""Handshakes of TLS, and the queue of connections whose peers are still to be proven."""

from kernels.tls cimport tls_context
from kernels.transport_state cimport connection, io_thread

cdef enum handshake_outcome:
    SHAKEN = 0             # done; the verdict says of whom
    WAITING = 1            # for the peer
    FAILED = 2


cdef void mark_unproven(connection* unproven) noexcept nogil
cdef connection* take_unproven(io_thread* thread) noexcept nogil
cdef void forget_unproven(connection* unproven) noexcept nogil
cdef int shake_hands(connection* shaking) noexcept nogil
cdef void judge_again(connection* judged) noexcept nogil
