"""What a request says of its sequence: the parameters sequence_id, sequence_start and sequence_end."""

from libc.stdint cimport uint64_t

from kernels.request cimport request, sequence_turn
from kernels.sequence_rules cimport sequence_rules

cdef enum:
    MAX_ID_BYTES = 128        # of a text, as in Triton
    SHOWN_ID_BYTES = 160      # room for an id in an error


cdef int read_turn(const sequence_rules* rules, uint64_t seed, request* target) noexcept nogil
cdef void write_id(const sequence_turn* turn, char* text) noexcept nogil
