"""What others ask of the sequences of a version, by its batcher."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.request cimport request
from kernels.sequence_rules cimport SequenceRules
from kernels.session cimport Session


cdef int check_sequences(SequenceRules sequences, Session session, bint cache_replies) except -1
cdef int keep_sequences(batcher* target) except -1
cdef bint wait_for_sequences(batcher* target, int64_t until_ns) noexcept nogil
cdef int64_t count_sequences(batcher* target) noexcept nogil
cdef bint keeps_sequence(batcher* target, request* asking) noexcept nogil
