"""The inputs that the server gives a request of a sequence."""

from kernels.request cimport request
from kernels.sequence_rules cimport sequence_rules
from kernels.sequences cimport sequence


cdef void bind_turn(const sequence_rules* rules, sequence* home, request* member) noexcept nogil
