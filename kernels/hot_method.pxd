"""Methods bound to the engine: from the message's bytes to the reply's without Python."""

from kernels.dispatch cimport engine_core
from kernels.transport_state cimport exchange, method

cdef void bind_unary(method* made, engine_core* engine) noexcept nogil
cdef void bind_stream(method* made, engine_core* engine) noexcept nogil
cdef void submit_exchange(exchange* submitted) noexcept nogil
cdef void finish_exchange(exchange* finished) noexcept nogil
