"""Has a version keep sequences, and answers what others ask of them, under its batcher's lock."""

import os

from libc.stdint cimport int64_t, uint64_t

from kernels.batcher cimport batcher
from kernels.request cimport request
from kernels.sequence_id cimport read_turn
from kernels.sequence_rules cimport SequenceRules
from kernels.sequences cimport has_sequence, open_sequences
from kernels.session cimport Session
from kernels.sync cimport monotonic_ns, pthread_cond_timedwait, pthread_mutex_lock, pthread_mutex_unlock, timespec


cdef int check_sequences(SequenceRules sequences, Session session, bint cache_replies) except -1:
    """Raise ValueError for rules that a version of a session cannot have; None is fine."""
    if sequences is None:
        return 0
    if sequences.session is not session:
        raise ValueError("the rules for sequences are of another session")
    if cache_replies:
        raise ValueError("cache_replies is not for a version that keeps sequences")
    return 0


cdef int keep_sequences(batcher* target) except -1:
    """Have a new version keep sequences by the rules of its signature."""
    cdef bytes seed = os.urandom(sizeof(uint64_t))
    target.sequences = open_sequences(target.accepted.sequences, target.max_queued,
                                      (<const uint64_t*> <const char*> seed)[0])
    if target.sequences == NULL:
        raise MemoryError
    target.rules.enough_rows = target.accepted.sequences.enough_rows
    return 0


cdef bint wait_for_sequences(batcher* target, int64_t until_ns) noexcept nogil:
    """Wait until every sequence has ended, by itself or for being idle, or the time has come. True when all have.

    What ensembles have under way may still begin one.
    """
    cdef timespec until
    cdef bint ended
    until.tv_sec = until_ns // 1000000000
    until.tv_nsec = until_ns % 1000000000
    pthread_mutex_lock(&target.lock)
    while (target.sequences.live > 0 or target.holds > 0) and monotonic_ns() < until_ns:
        pthread_cond_timedwait(&target.idle, &target.lock, &until)
    ended = target.sequences.live == 0 and target.holds == 0
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
