"""The sequences of one model version: whose turn it is, what waits, and the states between two requests.

A request joins its sequence when it is admitted, is released into the batcher's queue when its turn has come, and leaves
when it has run or is given up. Everything here happens under the batcher's lock; the values of a sequence whose request
runs belong to that run.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

from kernels.request cimport request
from kernels.request_list cimport request_list
from kernels.sequence_rules cimport sequence_rules
from kernels.session cimport MAX_RANK


cdef struct state_value:
    void* data                # raw layout
    size_t size
    size_t capacity
    int64_t[MAX_RANK] shape   # of one row


cdef struct sequence_list:
    sequence* first           # the one that has been in it for longest
    sequence* last


cdef struct sequence:
    sequence* chain           # the next one in its bucket
    sequence_list* home       # the list that it is in
    sequence* next
    sequence* previous
    uint64_t hash
    uint64_t number           # its id, when that is no text
    void* text                # its id as a BYTES element, owned; NULL when it is a number
    size_t text_size
    request_list line         # requests that wait for their turn, in order of arrival
    int64_t waiting           # how many those are
    request* released         # the one that is in the batcher's queue or runs
    bint has_slot
    bint is_ending            # the latest request ends it
    bint is_reset             # the next request runs on the initial state, whatever came before
    bint has_state            # `values` hold one; without, the state is the initial one
    int32_t current           # which half of `values` is the state; the other takes what a run gives
    int64_t idle_since_ns
    state_value* values       # two for each state


cdef struct sequence_table:
    const sequence_rules* rules
    sequence** buckets
    uint64_t mask             # buckets are mask + 1
    uint64_t seed             # of hashes
    int64_t live              # sequences in the table
    int64_t slots_taken
    int64_t waiting           # requests that have joined and are not released
    int64_t backlogged        # of them, those of sequences without a slot
    sequence_list backlog     # without a slot; each has a request that waits
    sequence_list busy        # with a slot and a released request
    sequence_list idle        # with a slot and no request
    request* turn_first       # released, to be queued by the batcher; linked by `next`
    request* turn_last
    bint is_unbounded         # slots are not counted: a drain lets nobody wait for a silent sequence


cdef sequence_table* open_sequences(const sequence_rules* rules, int64_t max_queued, uint64_t seed) noexcept nogil
cdef void close_sequences(sequence_table* used) noexcept nogil
cdef int64_t count_ahead(const sequence_table* table, const request* joining, int64_t queued) noexcept nogil
cdef int join_sequence(sequence_table* table, request* joining) noexcept nogil
cdef request* take_released(sequence_table* table) noexcept nogil
cdef void leave_sequence(sequence_table* table, request* leaving, bint has_run, int64_t now_ns) noexcept nogil
cdef request* take_overdue(sequence_table* table, int64_t now_ns, int64_t* wake_ns) noexcept nogil
cdef int64_t end_idle(sequence_table* table, int64_t now_ns) noexcept nogil
cdef int64_t find_idle_due(const sequence_table* table) noexcept nogil
cdef void set_unbounded(sequence_table* table, bint is_unbounded) noexcept nogil
cdef bint has_sequence(const sequence_table* table, const request* asking) noexcept nogil
