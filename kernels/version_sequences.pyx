"""Answers what others ask of a version's sequences, under its batcher's lock."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.request cimport request
from kernels.sequence_id cimport read_turn
from kernels.sequences cimport has_sequence
from kernels.sync cimport monotonic_ns, pthread_cond_timedwait, pthread_mutex_lock, pthread_mutex_unlock, timespec


cdef bint wait_for_sequences(batcher* target, int64_t until_ns) noexcept nogil:
    """Wait until every sequence has ended, by itself or for being idle, or the time has come. True when all have."""
    cdef timespec until
    cdef bint ended
    until.tv_sec = until_ns // 1000000000
    until.tv_nsec = until_ns % 1000000000
    pthread_mutex_lock(&target.lock)
    while target.sequences.live > 0 and monotonic_ns() < until_ns:
        pthread_cond_timedwait(&target.idle, &target.lock, &until)
    ended = target.sequences.live == 0
    pthread_mutex_unlock(&target.lock)
    return ended


cdef int64_t count_sequences(batcher* target) noexcept nogil:
    """How many sequences are under way; -1 for a version that keeps none."""
    cdef int64_t live = -1
    pthread_mutex_lock(&target.lock)
    if target.sequences != NULL:
        live = target.sequences.live
    pthread_mutex_unlock(&target.lock)
    return live


cdef bint keeps_sequence(batcher* target, request* asking) noexcept nogil:
    """Tell whether a request goes on with a sequence of this version; what its parameters say wrongly, it does not."""
    cdef bint found
    if read_turn(target.accepted.sequences, target.sequences.seed, asking) != 0:
        return False
    pthread_mutex_lock(&target.lock)
    found = has_sequence(target.sequences, asking)
    pthread_mutex_unlock(&target.lock)
    return found
