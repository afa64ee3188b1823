"""Reads and resets what a batcher counts, each at one moment, under its lock."""

from libc.stdint cimport int64_t
from libc.string cimport memset

from kernels.batch_start cimport count_waiting, is_idle
from kernels.batcher cimport batcher
from kernels.request cimport request
from kernels.statistics cimport copy_statistics, count_failure, counters, free_statistics, statistics
from kernels.sync cimport monotonic_ns, pthread_mutex_lock, pthread_mutex_unlock


cdef void count_refusal(batcher* target, const request* refused) noexcept nogil:
    """Count a request that is not admitted, by its error."""
    pthread_mutex_lock(&target.lock)
    count_failure(&target.counts, refused.error.code, 0)
    pthread_mutex_unlock(&target.lock)


cdef int64_t read_counts(batcher* target, counters* total, int64_t* running, bint* is_inline) noexcept nogil:
    """Copy the counters, how many batches run, and where, as they are at one moment; return how many requests wait."""
    cdef int64_t queued
    pthread_mutex_lock(&target.lock)
    total[0] = target.counts.total
    queued = count_waiting(target)
    running[0] = target.running
    is_inline[0] = target.task.is_inline
    pthread_mutex_unlock(&target.lock)
    return queued


cdef int64_t read_statistics(batcher* target, statistics* copied) noexcept nogil:
    """Copy all that is counted, to be freed by free_statistics; return how many requests wait, -1 without memory."""
    cdef int64_t queued
    pthread_mutex_lock(&target.lock)
    queued = count_waiting(target) if copy_statistics(copied, &target.counts) == 0 else -1
    pthread_mutex_unlock(&target.lock)
    return queued


cdef bint read_use(batcher* target, int64_t* last_used_ns) noexcept nogil:
    """Tell when the version was last asked for; True while it has requests or sequences, or an ensemble leads to it."""
    cdef bint is_used
    pthread_mutex_lock(&target.lock)
    last_used_ns[0] = target.last_used_ns
    is_used = not is_idle(target) or target.holds > 0 or (target.sequences != NULL and target.sequences.live > 0)
    pthread_mutex_unlock(&target.lock)
    return is_used


cdef void reset_counts(batcher* target) noexcept nogil:
    """Forget what was counted so far, for a version that is put in place: a warm-up is nobody's use of the model."""
    pthread_mutex_lock(&target.lock)
    target.last_used_ns = monotonic_ns()
    free_statistics(&target.counts)
    memset(&target.counts, 0, sizeof(statistics))
    pthread_mutex_unlock(&target.lock)


cdef void set_trace_rate(batcher* target, int64_t rate) noexcept nogil:
    """Trace one request in `rate` from now on, beginning with the next; none for 0."""
    pthread_mutex_lock(&target.lock)
    target.traced.rate = rate
    target.traced.passed = 0
    pthread_mutex_unlock(&target.lock)
