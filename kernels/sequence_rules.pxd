"""How a model keeps sequences: what the server puts into its inputs, and which outputs it hands to the next request."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.session cimport MAX_RANK, Session

cdef enum control_kind:
    CONTROL_START = 0         # true for a sequence's first request
    CONTROL_READY = 1         # true: a row without a request is never run
    CONTROL_END = 2           # true for a sequence's last request
    CONTROL_ID = 3            # the sequence's id


cdef struct control_rule:
    int32_t input             # which of the model's
    int kind                  # control_kind
    size_t size               # bytes of an element; of no meaning for an id that is a text
    uint8_t[2][8] values      # for false and for true
    int64_t[MAX_RANK] shape   # one element


cdef struct state_rule:
    int32_t input             # that takes the state
    int32_t output            # that gives the next one
    const uint8_t* initial    # raw layout; the SequenceRules own it
    size_t initial_size
    int64_t[MAX_RANK] initial_shape


cdef struct sequence_rules:
    control_rule* controls
    state_rule* states
    int32_t n_controls
    int32_t n_states
    int id_datatype           # of the input that takes ids, 0 where none does
    int64_t slots             # sequences under way at a time
    int64_t idle_ns           # how long one may be silent
    int64_t enough_rows       # a batch of so many waits for no more; 0 for max_batch_size


cdef class SequenceRules:
    cdef sequence_rules core
    cdef readonly Session session
    cdef list _kept           # the bytes objects behind initial states

    cdef int add_control(self, control_rule* made, object given) except -1
    cdef int add_state(self, state_rule* made, object given, object shown) except -1
