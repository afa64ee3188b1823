"""Lines requests up for their submission, where callers need permits once it is known what they may do."""

from kernels.transport_state cimport command, exchange

cdef void line_up(exchange* made) noexcept nogil
cdef void release_held(exchange* held) noexcept nogil
cdef void resume_call(command* given) noexcept nogil
