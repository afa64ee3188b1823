"""What a call of the native transport says of its key: idempotency-key, and who sends it."""

from kernels.transport_state cimport call

cdef int read_key(call* receiver) noexcept nogil
