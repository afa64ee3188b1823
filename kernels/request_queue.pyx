"""Keeps waiting requests in order: level by level, and within a level those that waited too long behind the others.

Postponed requests stay before every less urgent level, as with Triton. Nothing here takes a lock, reads a clock or settles
a request.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free

from kernels.request cimport QUEUED, SETTLED, request
from kernels.request_list cimport link_last, unlink_from
from kernels.sync cimport add_overflows, int_store


cdef int open_queue(request_queue* made, int32_t n_levels) noexcept nogil:
    """Make an empty queue of levels without limits; their policies are the caller's to set. 0, or -1 without memory."""
    made.levels = <queue_level*> calloc(n_levels, sizeof(queue_level))
    made.n_levels = n_levels if made.levels != NULL else 0
    made.default_level = 0
    made.requests = made.rows = made.give_up_ns = 0
    made.is_give_up_stale = False
    return 0 if made.levels != NULL else -1


cdef void close_queue(request_queue* used) noexcept nogil:
    """Free an empty queue. One of zeros is fine."""
    free(used.levels)
    used.levels = NULL


# ---- coming and going


cdef int64_t append_request(request_queue* target, queue_level* level, request* admitted) noexcept nogil:
    """Put a request at the end of its level; return when the queue must be looked at for its sake, 0 for never."""
    limit_wait(level, admitted)
    link_last(&level.waiting, admitted)
    level.requests += 1
    level.rows += admitted.rows
    target.requests += 1
    target.rows += admitted.rows
    int_store(&admitted.state, QUEUED)
    if admitted.give_up_ns != 0 and (target.give_up_ns == 0 or admitted.give_up_ns < target.give_up_ns):
        target.give_up_ns = admitted.give_up_ns
        target.is_give_up_stale = False
    return find_earlier(admitted.give_up_ns, admitted.postpone_ns)


cdef void limit_wait(queue_level* level, request* admitted) noexcept nogil:
    """Give a request its level, and say until when it may wait by its deadline and by the rules of that."""
    admitted.level = level
    admitted.is_postponed = False
    admitted.give_up_ns = admitted.deadline_ns
    admitted.postpone_ns = 0
    if level.policy.timeout_ns != 0 or level.policy.takes_timeouts:
        apply_timeout(&level.policy, admitted)


cdef void apply_timeout(const queue_policy* policy, request* admitted) noexcept nogil:
    """Set until when a request may wait, and what comes then: the policy's time, or the request's own if shorter."""
    cdef int64_t span_ns = policy.timeout_ns, until_ns
    if policy.takes_timeouts:
        span_ns = find_earlier(span_ns, admitted.timeout_ns)
    # Where it waited for its model to be loaded no policy was known.
    if span_ns == 0 or add_overflows(admitted.arrival_ns + admitted.parked_ns, span_ns, &until_ns):
        return
    if policy.postpones:
        admitted.postpone_ns = until_ns
    else:
        admitted.give_up_ns = find_earlier(admitted.give_up_ns, until_ns)


cdef int64_t find_earlier(int64_t one_ns, int64_t other_ns) noexcept nogil:
    """Return the earlier of two times, of which 0 is never."""
    if one_ns == 0 or (other_ns != 0 and other_ns < one_ns):
        return other_ns
    return one_ns


# ---- looking


cdef request* find_first(const request_queue* source) noexcept nogil:
    """Return the request whose turn it is, or NULL."""
    return find_first_from(source, 0)


cdef request* find_first_from(const request_queue* source, int32_t index) noexcept nogil:
    """Return the first request of the levels from `index` on, or NULL."""
    while index < source.n_levels:
        if source.levels[index].waiting.first != NULL:
            return source.levels[index].waiting.first
        if source.levels[index].postponed.first != NULL:
            return source.levels[index].postponed.first
        index += 1
    return NULL


cdef int64_t count_rows_before(const request_queue* source, const queue_level* level) noexcept nogil:
    """Return how many rows would run before a request that comes now: those in time, of its level and more urgent ones."""
    cdef int64_t rows = 0
    cdef const queue_level* other = source.levels
    while other <= level:
        rows += other.rows
        other += 1
    return rows


cdef int64_t find_oldest_arrival(const request_queue* source) noexcept nogil:
    """Return when the longest waiting request came; the queue is not empty."""
    cdef int64_t oldest_ns = INT64_MAX
    cdef int32_t index
    for index in range(source.n_levels):
        if source.levels[index].waiting.first != NULL:
            oldest_ns = min(oldest_ns, source.levels[index].waiting.first.arrival_ns)
        if source.levels[index].postponed.first != NULL:
            oldest_ns = min(oldest_ns, source.levels[index].postponed.first.arrival_ns)
    return oldest_ns


cdef int64_t find_give_up(request_queue* source) noexcept nogil:
    """Return the earliest time at which a waiting request is to be given up, 0 for never."""
    cdef const request* member
    if source.is_give_up_stale:
        source.is_give_up_stale = False
        source.give_up_ns = 0
        member = find_first(source)
        while member != NULL:
            source.give_up_ns = find_earlier(source.give_up_ns, member.give_up_ns)
            member = find_next(source, member)
    return source.give_up_ns


# ---- what has waited too long


cdef request* take_expired(request_queue* target, int64_t now_ns, int64_t* wake_ns) noexcept nogil:
    """Unlink every request that is to be given up, and postpone those whose time for that has come.

    Returns what was unlinked, linked by `next` and marked as settled; `wake_ns` is when to come again, 0 for never.
    """
    cdef request* expired = NULL
    cdef request* member = find_first(target)
    cdef request* following
    wake_ns[0] = 0
    while member != NULL:
        following = find_next(target, member)
        if has_expired(member, now_ns):
            unlink_request(target, member)
            # Before the lock is left: a cancellation that comes now must not find it queued and settle it again.
            int_store(&member.state, SETTLED)
            member.next = expired
            expired = member
        else:
            if member.postpone_ns != 0 and member.postpone_ns <= now_ns:
                postpone(member)
            wake_ns[0] = find_earlier(wake_ns[0], find_earlier(member.give_up_ns, member.postpone_ns))
        member = following
    return expired


cdef void postpone(request* late) noexcept nogil:
    cdef queue_level* level = <queue_level*> late.level
    unlink_from(&level.waiting, late)
    level.rows -= late.rows
    late.postpone_ns = 0
    late.is_postponed = True
    link_last(&level.postponed, late)
