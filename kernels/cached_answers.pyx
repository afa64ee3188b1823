"""Looks a model's requests up in the response cache, keeps their replies there, and counts both as Triton does.

For batchers whose `cache` is not NULL. A clock is read before and after, since nobody knows how long a large message's
digest takes.
"""

from libc.stdint cimport int64_t

from kernels.response_cache cimport can_be_cached, find_reply, keep_reply, make_key
from kernels.statistics cimport count_hit, count_miss
from kernels.status cimport OK
from kernels.sync cimport monotonic_ns, pthread_mutex_lock, pthread_mutex_unlock


cdef bint find_answer(batcher* target, request* asked) noexcept nogil:
    """Put the answer of a bound request into it if it is known; else have its reply kept, where that can be."""
    cdef int64_t started_ns, ended_ns
    if not can_be_cached(asked):
        return False
    started_ns = monotonic_ns()
    if make_key(target.cache, target.serial, &target.accepted, asked) != 0:
        return False
    if not find_reply(target.cache, asked):
        asked.is_missed = True
        asked.lookup_ns = monotonic_ns() - started_ns
        return False
    ended_ns = monotonic_ns()
    pthread_mutex_lock(&target.lock)
    count_hit(&target.counts, asked.arrival_ns, started_ns, ended_ns)
    target.last_used_ns = max(target.last_used_ns, asked.arrival_ns)
    pthread_mutex_unlock(&target.lock)
    return True


cdef void keep_answers(batcher* target, request* batch) noexcept nogil:
    """Keep the replies of a batch that has run, before its requests are settled."""
    cdef int64_t started_ns = monotonic_ns(), ended_ns, misses = 0, spent_ns = 0
    while batch != NULL:
        if batch.is_missed and batch.error.code == OK:
            keep_reply(target.cache, target.serial, batch)
            ended_ns = monotonic_ns()
            spent_ns += batch.lookup_ns + ended_ns - started_ns
            started_ns = ended_ns
            misses += 1
        batch = batch.next
    pthread_mutex_lock(&target.lock)
    count_miss(&target.counts, misses, spent_ns)
    pthread_mutex_unlock(&target.lock)
