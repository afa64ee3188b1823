"""Whether a call of a bound method is admitted: by what its I/O thread knows, else by what Python says."""

from kernels.transport_state cimport call, command

cdef bint is_admitted(call* asking) noexcept nogil
cdef void note_decision(command* given) noexcept nogil
