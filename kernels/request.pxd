"""One inference request from its admission to its reply, and the pool that such requests come from.

The transport owns a request: it takes one from the engine's pool, keeps the message's bytes alive, and gives the request
back after its reply has been read. `done` is called exactly once for each submitted request, from any thread, without
the GIL and without a lock held; after it the engine touches the request no more.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from kernels.codec cimport bytes_view, request_view
from kernels.failure cimport failure
from kernels.kept_outputs cimport kept_outputs
from kernels.permit cimport admission
from kernels.shared_memory cimport region
from kernels.sync cimport pthread_mutex_t

ctypedef void (*done_function)(request* finished) noexcept nogil

cdef enum request_state:
    FRESH = 0      # taken from the pool
    QUEUED = 1     # linked into its batcher's queue
    RUNNING = 2    # part of a batch
    SETTLED = 3    # its reply or failure stands
    PARKED = 4     # waits for its model to be loaded
    MOVING = 5     # on the way from there to a queue
    JOINED = 6     # waits for a run under its key


cdef enum:
    CACHE_KEY_BYTES = 32       # SHA-256


cdef struct bound_tensor:
    const uint8_t* data       # raw layout, unaligned; in the message, or in the request's scratch
    size_t size
    const int64_t* shape      # in the request's view or its shapes; rank is the model's; NULL for an input left out
    region* home              # the shared memory that the tensor is to be read from, NULL for none
    int64_t offset            # in it


cdef struct delivery:         # how a requested output leaves, where not as the model gave it in the reply
    region* home              # the shared memory that it goes to, NULL for none
    int64_t offset            # in it
    int64_t size              # room there
    int64_t classes           # how many of each row's largest elements to name, 0 for the elements themselves


cdef struct sequence_turn:    # a request's place in its sequence, where its model keeps sequences
    bytes_view text           # the id, in the message; data is NULL when the id is a number
    uint64_t number           # the bits of that
    uint64_t hash             # of the id, for the table that the request is meant for
    bint starts
    bint ends
    bint is_fresh             # runs on the initial state
    bint waits                # for its turn: not in the batcher's queue
    void* home                # the sequence, from admission until it leaves


cdef struct request:
    request* completed        # first: the link of the transport's own list
    request* next             # the batcher's queue or the pool; owner decides
    request* previous
    const uint8_t* message    # wire bytes, alive until the request is given back
    size_t message_size
    bytes_view version_hint   # the gateway's choice of version, used when the message names none
    admission* admitted       # the call's, looked at while it is submitted; NULL where everybody may ask for everything
    const uint8_t* key        # the digest of its caller and the key that it came with, alive as the message is; NULL without
    int64_t deadline_ns       # monotonic; 0 is none
    int64_t arrival_ns
    done_function done
    void* context             # the transport's, for `done`
    void* call                # the transport's, for the reader of the reply
    void* batcher             # where it is queued, NULL before admission
    void* level               # of its queue, while it waits
    bint is_postponed         # in the queue behind those that are in time
    int64_t postpone_ns       # when it gets there; monotonic, 0 for never
    int64_t give_up_ns        # when it is settled should it still wait; monotonic, 0 for never
    void* dormant             # what it waits for while it is parked
    int64_t parked_ns         # how long it was, once it has left; 0 for one that never was
    int withdrawn             # cancelled while MOVING, by who takes it in; touched by atomic exchanges alone
    int state                 # request_state, read by cancel without the lock
    bint cancelled            # cancelled while running: the reply is dropped
    bint wants_timing         # its reply says how long it waited and ran
    bint is_missed            # the response cache had no answer: the reply is kept under cache_key
    uint8_t[CACHE_KEY_BYTES] cache_key
    int64_t lookup_ns         # how long it was looked for
    int64_t rows              # size of its batch dimension; 1 for a model that does not batch
    request_view view
    bound_tensor* inputs      # one per model input, in the model's order
    int32_t inputs_capacity
    int32_t* outputs          # indices of the model's outputs in the order in which they were asked for
    int32_t n_outputs
    int32_t outputs_capacity
    delivery* deliveries      # one per requested output, of meaning when has_deliveries
    bint has_deliveries
    int64_t* shapes           # of reshaped inputs, as the model has them
    size_t shapes_capacity    # bytes
    region** regions          # held until the request is given back
    int32_t n_regions
    int32_t regions_capacity
    sequence_turn turn        # written when its model keeps sequences, of no meaning otherwise
    int64_t held_bytes        # counted while it waits or runs: the message, and what was copied out of shared memory
    uint8_t* scratch          # typed contents and those of shared memory, in raw layout
    size_t scratch_capacity
    uint8_t* classes          # outputs that are sent as classes
    size_t classes_capacity
    uint8_t* reply            # ModelInferResponse on the wire
    size_t reply_size
    uint8_t* reply_block      # the memory in which it lies
    size_t reply_capacity
    uint64_t priority         # as the caller gave it: 1 is the most urgent, 0 the model's default
    int64_t timeout_ns        # how long it may wait in the queue, as the caller gave it; 0 as the model has it
    request* after            # who left the queue next, where answers keep the order
    int64_t retry_ns          # refused: in what time it would not have been, as far as is known; 0 for no idea
    kept_outputs* kept        # of a step of an ensemble: where its outputs are described, which make up `reply`
    void* ensemble_run        # of a request for an ensemble, once it is RUNNING: what runs its steps
    void* joined              # the answer whose run it waits for, NULL for none; under the lock of that
    bint is_replayed          # answered by what another request was run for
    bint is_for_key           # a run for all who wait for it, and for those who come later
    failure error             # code 0 when `reply` holds


cdef struct request_pool:
    pthread_mutex_t lock
    request* free
    int64_t kept


cdef int open_pool(request_pool* pool) noexcept nogil
cdef void close_pool(request_pool* pool) noexcept nogil
cdef request* take_request(request_pool* pool) noexcept nogil
cdef void give_back_request(request_pool* pool, request* used) noexcept nogil
cdef int keep_region(request* target, region* held) noexcept nogil
cdef int reserve(void** buffer, size_t* capacity, size_t size) noexcept nogil
cdef uint8_t* reserve_reply(request* target, size_t size, size_t aligned) noexcept nogil
cdef void drop_reply(request* target) noexcept nogil
cdef bint was_withdrawn(request* taken_in) noexcept nogil
