"""Looks a model's requests up in the response cache, keeps their replies there, and counts both as Triton does.

For batchers whose `cache` is not NULL. A clock is read before and after, since nobody knows how long a large message's
digest takes.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free

from kernels.cached_tensors cimport pack_reply
from kernels.response_cache cimport can_be_cached, find_reply, keep_reply, make_key
from kernels.statistics cimport count_hit, count_miss
from kernels.status cimport OK
from kernels.sync cimport monotonic_ns, pthread_mutex_lock, pthread_mutex_unlock
from kernels.wire cimport bytes_view


cdef bint find_answer(batcher* target, int64_t serial, request* asked) noexcept nogil:
    """Put the answer of a bound request into it if it is known; else have its reply kept, where that can be.

    Parameters
    ----------
    serial
        The version's own; of an ensemble, its plan's.
    """
    cdef int64_t started_ns, ended_ns
    if not can_be_cached(asked):
        return False
    started_ns = monotonic_ns()
    if make_key(target.cache, serial, &target.accepted, asked) != 0:
        return False
    if not find_reply(target.cache, &target.accepted, asked):
        asked.is_missed = True
        asked.lookup_ns = monotonic_ns() - started_ns
        return False
    ended_ns = monotonic_ns()
    if asked.kept != NULL:
        asked.kept.ended_ns = ended_ns
        asked.kept.queued_ns = asked.kept.gather_ns = asked.kept.run_ns = asked.kept.encode_ns = 0
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
            keep_answer(target, batch)
            ended_ns = monotonic_ns()
            spent_ns += batch.lookup_ns + ended_ns - started_ns
            started_ns = ended_ns
            misses += 1
        batch = batch.next
    pthread_mutex_lock(&target.lock)
    count_miss(&target.counts, misses, spent_ns)
    pthread_mutex_unlock(&target.lock)


cdef void keep_answer(batcher* target, const request* answered) noexcept nogil:
    """Keep a reply; a step's as any other caller would have got it."""
    cdef bytes_view packed
    if answered.kept == NULL:
        keep_reply(target.cache, target.serial, answered.cache_key, bytes_view(answered.reply, answered.reply_size))
        return
    packed = pack_reply(&target.accepted, &target.served, answered)
    if packed.data != NULL:
        keep_reply(target.cache, target.serial, answered.cache_key, packed)
    free(<void*> packed.data)
