"""What one model version has done since it was loaded: counts, times, and how often each took how long.

Counted under its batcher's lock, from clocks that are read once a batch: a request costs a few additions.
"""

from libc.stdint cimport int64_t

from kernels.batch_rules cimport DISPATCH_REASONS
from kernels.request cimport request

cdef enum:
    # A bucket for durations of up to 1, 2, 4 … 2^26 µs (67 s), and one for all beyond.
    DURATION_BUCKETS = 28
    # Executions are told apart by their rows up to that many; larger ones are in the totals alone.
    MAX_COUNTED_ROWS = 65536


cdef struct batch_times:     # of one execution; clocks are monotonic
    int64_t taken_ns         # when its requests left the queue
    int64_t ended_ns         # when its replies stood, or its failure
    int64_t gather_ns
    int64_t run_ns
    int64_t encode_ns


cdef struct counters:
    int64_t success              # requests, by how they ended
    int64_t failed               # in the run
    int64_t cancelled            # before the reply stood
    int64_t expired              # in the queue, by their deadline
    int64_t timed_out            # in the queue, by the time that its policy gives
    int64_t rejected             # the queue was full, or memory short
    int64_t late                 # refused because their deadline could not have been kept
    int64_t refused              # did not fit the model
    int64_t success_ns           # of those that succeeded, from arrival to reply
    int64_t failure_ns           # of all others, from arrival to error
    int64_t queue_ns             # of those that succeeded, from arrival to the batch; the next three likewise
    int64_t request_gather_ns    # each of a batch waits for the whole batch: its time counts once for each
    int64_t request_run_ns
    int64_t request_encode_ns
    int64_t cache_hits           # answered by the response cache; of those that succeeded
    int64_t cache_hit_ns         # looking them up
    int64_t cache_misses         # run and kept there
    int64_t cache_miss_ns        # looking for them and keeping them
    int64_t executions           # that succeeded
    int64_t rows                 # of theirs
    int64_t gather_ns            # of theirs, each once
    int64_t run_ns
    int64_t encode_ns
    int64_t last_inference_ms    # since the epoch: when the latest execution ended; 0 before the first


cdef struct histograms:          # how many took up to each bound; of requests the first two, of executions the others
    int64_t[DURATION_BUCKETS] request
    int64_t[DURATION_BUCKETS] queue
    int64_t[DURATION_BUCKETS] gather
    int64_t[DURATION_BUCKETS] run
    int64_t[DURATION_BUCKETS] encode


cdef struct batch_counts:        # executions of one number of rows
    int64_t executions
    int64_t gather_ns
    int64_t run_ns
    int64_t encode_ns


cdef struct statistics:
    counters total
    histograms durations
    int64_t[DISPATCH_REASONS] dispatches   # batches that left the queue, by reason
    batch_counts* batches        # by rows; grows with the largest batch so far
    int64_t batches_capacity


cdef void count_batch(statistics* target, const request* batch, int64_t rows, const batch_times* spent,
                      bint succeeded) noexcept nogil
cdef void count_hit(statistics* target, int64_t arrival_ns, int64_t started_ns, int64_t ended_ns) noexcept nogil
cdef void count_miss(statistics* target, int64_t requests, int64_t spent_ns) noexcept nogil
cdef void count_failure(statistics* target, int code, int64_t waited_ns) noexcept nogil
cdef void count_expiry(statistics* target, const request* expired, int64_t now_ns) noexcept nogil
cdef void count_late(statistics* target) noexcept nogil
cdef int copy_statistics(statistics* copied, const statistics* source) noexcept nogil
cdef int add_statistics(statistics* total, const statistics* added) noexcept nogil
cdef void free_statistics(statistics* used) noexcept nogil
cdef dict describe_counters(const counters* total)
cdef object describe_statistics(str name, int64_t version, const statistics* kept, int64_t queued,
                                int64_t sequences)
