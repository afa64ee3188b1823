"""Counts what becomes of requests and executions, and describes the counts to Python.

Whoever calls the counting functions holds the batcher's lock. Sums are of times between two readings of a monotonic
clock: they never fall, and 63 bits of nanoseconds last for 292 years of them.
"""

from collections import namedtuple

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from kernels.batch_rules cimport STAY
from kernels.request cimport request
from kernels.status cimport CANCELLED, EXHAUSTED, EXPIRED, INVALID, OK
from kernels.sync cimport bit_length, epoch_ms

BatchCounts = namedtuple("BatchCounts", "rows executions gather_ns run_ns encode_ns")
BatchCounts.__doc__ = """The executions of one number of rows, and how long their phases took in all."""
VersionStatistics = namedtuple("VersionStatistics", "name version counts histograms batches queued dispatches sequences",
                               defaults=(None,))
VersionStatistics.__doc__ = """What one model version has done, at one moment.

``counts`` holds the fields of struct counters; ``histograms`` by phase, how many took up to each of DURATION_BOUNDS_US
and, last, longer; ``batches`` a BatchCounts for each number of rows that ran; ``queued`` is how many requests wait;
``dispatches`` how many batches left the queue, by each of REASONS; ``sequences`` how many are under way, None for a
version that keeps none.
"""

# Why a batch leaves the queue, in the order of kernels.batch_rules, which says more.
REASONS = ("full", "preferred", "delay", "deadline", "alone", "drain")
# What the buckets of histograms are for, but for the last, which has no bound.
DURATION_BOUNDS_US = tuple(1 << index for index in range(DURATION_BUCKETS - 1))


# ---- counting; under the batcher's lock


cdef void count_batch(statistics* target, const request* batch, int64_t rows, const batch_times* spent,
                      bint succeeded) noexcept nogil:
    """Count an execution of `rows` rows and what it means for each request of the batch."""
    cdef int64_t answered = 0
    while batch != NULL:
        if batch.kept != NULL:
            keep_times(batch, spent)
        if batch.cancelled:
            count_failure(target, CANCELLED, spent.ended_ns - batch.arrival_ns)
        elif succeeded and batch.error.code == OK:
            count_success(target, batch.arrival_ns, spent)
            answered += 1
        else:
            target.total.failed += 1
            target.total.failure_ns += spent.ended_ns - batch.arrival_ns
        batch = batch.next
    if not succeeded:
        return
    target.total.request_gather_ns += answered * spent.gather_ns
    target.total.request_run_ns += answered * spent.run_ns
    target.total.request_encode_ns += answered * spent.encode_ns
    count_execution(target, rows, spent)


cdef void keep_times(const request* step, const batch_times* spent) noexcept nogil:
    """Tell an ensemble how long its step took."""
    step.kept.ended_ns = spent.ended_ns
    step.kept.queued_ns = max(spent.taken_ns - step.arrival_ns, <int64_t> 0)
    step.kept.gather_ns = spent.gather_ns
    step.kept.run_ns = spent.run_ns
    step.kept.encode_ns = spent.encode_ns


cdef inline void count_success(statistics* target, int64_t arrival_ns, const batch_times* spent) noexcept nogil:
    # Below 0 for one that came between the reading of the clock and the taking of the batch.
    cdef int64_t queued_ns = max(spent.taken_ns - arrival_ns, <int64_t> 0)
    cdef int64_t total_ns = spent.ended_ns - arrival_ns
    target.total.success += 1
    target.total.success_ns += total_ns
    target.total.queue_ns += queued_ns
    target.durations.request[find_bucket(total_ns)] += 1
    target.durations.queue[find_bucket(queued_ns)] += 1


cdef void count_execution(statistics* target, int64_t rows, const batch_times* spent) noexcept nogil:
    cdef batch_counts* same
    target.total.executions += 1
    target.total.rows += rows
    target.total.gather_ns += spent.gather_ns
    target.total.run_ns += spent.run_ns
    target.total.encode_ns += spent.encode_ns
    target.total.last_inference_ms = max(target.total.last_inference_ms, epoch_ms())
    target.durations.gather[find_bucket(spent.gather_ns)] += 1
    target.durations.run[find_bucket(spent.run_ns)] += 1
    target.durations.encode[find_bucket(spent.encode_ns)] += 1
    same = find_batch(target, rows)
    if same != NULL:
        same.executions += 1
        same.gather_ns += spent.gather_ns
        same.run_ns += spent.run_ns
        same.encode_ns += spent.encode_ns


cdef inline int find_bucket(int64_t duration_ns) noexcept nogil:
    """The first bucket whose bound is not below the duration."""
    cdef int index = bit_length(<uint64_t> ((duration_ns - 1) // 1000)) if duration_ns > 0 else 0
    return min(index, <int> DURATION_BUCKETS - 1)


cdef batch_counts* find_batch(statistics* target, int64_t rows) noexcept nogil:
    """Where executions of so many rows are counted; NULL beyond MAX_COUNTED_ROWS and without memory."""
    cdef batch_counts* grown
    cdef int64_t capacity
    if rows > MAX_COUNTED_ROWS:
        return NULL
    if rows >= target.batches_capacity:
        capacity = <int64_t> 1 << bit_length(<uint64_t> rows)
        grown = <batch_counts*> realloc(target.batches, capacity * sizeof(batch_counts))
        if grown == NULL:
            return NULL
        memset(grown + target.batches_capacity, 0, (capacity - target.batches_capacity) * sizeof(batch_counts))
        target.batches = grown
        target.batches_capacity = capacity
    return &target.batches[rows]


cdef void count_hit(statistics* target, int64_t arrival_ns, int64_t started_ns, int64_t ended_ns) noexcept nogil:
    """Count a request that the response cache has answered: as one that succeeded, and that waited until then."""
    cdef int64_t queued_ns = max(started_ns - arrival_ns, <int64_t> 0)
    target.total.success += 1
    target.total.success_ns += ended_ns - arrival_ns
    target.total.queue_ns += queued_ns
    target.total.cache_hits += 1
    target.total.cache_hit_ns += ended_ns - started_ns
    target.durations.request[find_bucket(ended_ns - arrival_ns)] += 1
    target.durations.queue[find_bucket(queued_ns)] += 1


cdef void count_miss(statistics* target, int64_t requests, int64_t spent_ns) noexcept nogil:
    """Count requests that the response cache had no answer for; their run is counted by itself."""
    target.total.cache_misses += requests
    target.total.cache_miss_ns += spent_ns


cdef void count_failure(statistics* target, int code, int64_t waited_ns) noexcept nogil:
    """Count a request that got an error, other than by its run, by its code of kernels.status."""
    target.total.failure_ns += waited_ns
    if code == CANCELLED:
        target.total.cancelled += 1
    elif code == EXPIRED:
        target.total.expired += 1
    elif code == EXHAUSTED:
        target.total.rejected += 1
    else:
        target.total.refused += 1


cdef void count_expiry(statistics* target, const request* expired, int64_t now_ns) noexcept nogil:
    """Count a request that was given up in the queue: for its deadline, or for a timeout that came before that."""
    if expired.deadline_ns != 0 and expired.deadline_ns <= expired.give_up_ns:
        target.total.expired += 1
    else:
        target.total.timed_out += 1
    target.total.failure_ns += now_ns - expired.arrival_ns


cdef void count_late(statistics* target) noexcept nogil:
    """Count a request that was refused since it could not have been answered by its deadline."""
    target.total.late += 1


# ---- reading


cdef int copy_statistics(statistics* copied, const statistics* source) noexcept nogil:
    """Copy counts, to be freed by free_statistics; the batcher's lock is held. 0, or -1 without memory."""
    copied[0] = source[0]
    copied.batches = NULL
    if source.batches_capacity == 0:
        return 0
    copied.batches = <batch_counts*> malloc(source.batches_capacity * sizeof(batch_counts))
    if copied.batches == NULL:
        return -1
    memcpy(copied.batches, source.batches, source.batches_capacity * sizeof(batch_counts))
    return 0


cdef int add_statistics(statistics* total, const statistics* added) noexcept nogil:
    """Add counts of the same version to others. 0, or -1 without memory, when those by rows are not complete."""
    cdef int64_t latest_ms = max(total.total.last_inference_ms, added.total.last_inference_ms)
    cdef int64_t rows
    cdef batch_counts* same
    add_numbers(<int64_t*> &total.total, <const int64_t*> &added.total, sizeof(counters))
    total.total.last_inference_ms = latest_ms
    add_numbers(<int64_t*> &total.durations, <const int64_t*> &added.durations, sizeof(histograms))
    add_numbers(total.dispatches, added.dispatches, sizeof(total.dispatches))
    for rows in range(added.batches_capacity):
        if added.batches[rows].executions > 0:
            same = find_batch(total, rows)
            if same == NULL:
                return -1
            add_numbers(<int64_t*> same, <const int64_t*> &added.batches[rows], sizeof(batch_counts))
    return 0


cdef inline void add_numbers(int64_t* total, const int64_t* added, size_t size) noexcept nogil:
    """Add structs of so many bytes, all of whose fields are 64-bit numbers."""
    cdef size_t index
    for index in range(size // sizeof(int64_t)):
        total[index] += added[index]


cdef void free_statistics(statistics* used) noexcept nogil:
    """Free what counting or copying allocated."""
    free(used.batches)
    used.batches = NULL
    used.batches_capacity = 0


cdef dict describe_counters(const counters* total):
    """Return {name: count or nanoseconds}."""
    return total[0]


cdef object describe_statistics(str name, int64_t version, const statistics* kept, int64_t queued,
                                int64_t sequences):
    """Return a VersionStatistics of a copy; `sequences` is -1 for a version that keeps none."""
    cdef int64_t rows
    cdef batch_counts* same
    batches = []
    for rows in range(kept.batches_capacity):
        same = &kept.batches[rows]
        if same.executions > 0:
            batches.append(BatchCounts(rows, same.executions, same.gather_ns, same.run_ns, same.encode_ns))
    dispatches = {reason: kept.dispatches[STAY + 1 + index] for index, reason in enumerate(REASONS)}
    return VersionStatistics(name, version, describe_counters(&kept.total), kept.durations, batches, queued, dispatches,
                             None if sequences < 0 else sequences)
