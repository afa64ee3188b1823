"""The order of requests on their way through an ensemble to steps that keep sequences: of each sequence, one after the other.

Steps before such a step run side by side, for one request longer than for the next. So a request of a sequence waits here
until the one before it has begun all its steps that keep sequences: these see the requests in the order of their arrival.
"""

from libc.stdint cimport int64_t, uint64_t

from kernels.request cimport sequence_turn
from kernels.sync cimport pthread_mutex_t, read_sections
from kernels.wire cimport bytes_view

cdef enum:
    GATE_BUCKETS = 1024


cdef enum gate_outcome:
    GATE_PASSED = 0              # the request may go on, and must let the next one do so
    GATE_WAITS = 1
    GATE_NO_MEMORY = 2


cdef struct gate_place:          # a sequence of which a request is on its way
    gate_place* chained          # the next one in its bucket
    uint64_t hash
    int64_t version              # of the ensemble
    bytes_view name              # of the ensemble; behind this struct, in its block
    bytes_view text              # the id, there too; data is NULL when the id is a number
    uint64_t number
    gate_turn* first             # those that wait, in order of arrival
    gate_turn* last
    bint is_open                 # nobody is on the way: the next one may go
    bint is_served               # a thread lets one after the other go


cdef struct gate_turn:           # a request's, in its run
    gate_place* place            # NULL when it is not in order with others, or no longer
    gate_turn* next
    gate_turn* previous
    void* run
    bint waits                   # under the gate's lock


cdef struct sequence_gate:       # one for all ensembles of an engine, so that a new edition keeps the order of the old one
    read_sections* sections      # in which elders are looked for
    void** elders                # elder_list*, as the engine publishes them
    uint64_t seed                # of hashes: what nobody outside can know
    pthread_mutex_t lock         # guards what follows; nothing else is locked meanwhile
    gate_place* buckets[GATE_BUCKETS]


cdef void open_gate(sequence_gate* made, uint64_t seed, read_sections* sections, void** elders) noexcept nogil
cdef void close_gate(sequence_gate* used) noexcept nogil
cdef int enter_gate(sequence_gate* gate, bytes_view name, int64_t version, const sequence_turn* asked,
                    gate_turn* turn) noexcept nogil
cdef bint leave_gate(sequence_gate* gate, gate_turn* turn) noexcept nogil
cdef void* take_first(sequence_gate* gate, gate_place* place, bint has_passed) noexcept nogil
