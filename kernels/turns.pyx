"""Moves requests of sequences into their version's queue, one of each sequence at a time, and out of both."""

from libc.stdint cimport int64_t

from kernels.batch_start cimport start_or_wait, tell_if_idle, wake_by
from kernels.batcher cimport batcher
from kernels.failure cimport failure
from kernels.request cimport SETTLED, request
from kernels.request_queue cimport append_request, choose_level, limit_wait, queue_level, unlink_request
from kernels.sequences cimport (
    end_idle, find_idle_due, join_sequence, leave_sequence, set_unbounded, take_overdue, take_released,
)
from kernels.settling cimport set_error
from kernels.statistics cimport count_failure
from kernels.status cimport CANCELLED, OK
from kernels.sync cimport int_store, monotonic_ns


cdef int join_turn(batcher* target, queue_level* level, request* admitted) noexcept nogil:
    """Put a request behind the others of its sequence; one without others is queued. 0, or -1 with its error set.

    It may wait as long as it might in the queue: both are counted from its arrival.
    """
    if join_sequence(target.sequences, admitted) != 0:
        return -1
    limit_wait(level, admitted)
    if admitted.turn.waits and admitted.give_up_ns != 0:
        wake_by(target, admitted.give_up_ns)
    take_turns(target)
    return 0


cdef void take_turns(batcher* target) noexcept nogil:
    """Queue what has come to its turn in a sequence, and be there when one has been idle for too long."""
    cdef request* member = take_released(target.sequences)
    cdef int64_t due_ns
    while member != NULL:
        due_ns = append_request(&target.queue, choose_level(&target.queue, member.priority), member)
        if due_ns != 0:
            wake_by(target, due_ns)
        member = take_released(target.sequences)
    due_ns = find_idle_due(target.sequences)
    if due_ns != 0:
        wake_by(target, due_ns)


cdef void drop_request(batcher* target, request* dropped, int64_t now_ns) noexcept nogil:
    """Take a queued request that will not run out of the queue, and out of its sequence, where another may go then."""
    if target.sequences == NULL:
        unlink_request(&target.queue, dropped)
        return
    if not dropped.turn.waits:
        unlink_request(&target.queue, dropped)
    leave_sequence(target.sequences, dropped, False, now_ns)
    take_turns(target)
    start_or_wait(target, now_ns)


cdef void drop_cancelled(batcher* target, request* dropped) noexcept nogil:
    """Take a queued request out and count it as cancelled; who has the lock settles it then, with its error."""
    cdef int64_t now_ns = monotonic_ns()
    drop_request(target, dropped, now_ns)
    int_store(&dropped.state, SETTLED)
    count_failure(&target.counts, CANCELLED, now_ns - dropped.arrival_ns)
    set_error(dropped, CANCELLED, "the request was cancelled while it was queued")
    tell_if_idle(target)


cdef request* expire_turns(batcher* target, request* expired, int64_t now_ns) noexcept nogil:
    """Let requests that the queue has given up leave their sequences, and end those that have been idle for too long.

    Returns the same requests and those that are to be given up before their turn came, marked as settled like them.
    """
    cdef request* member = expired
    cdef request* overdue
    cdef request* following
    cdef int64_t wake_ns = 0
    while member != NULL:
        leave_sequence(target.sequences, member, False, now_ns)
        member = member.next
    overdue = take_overdue(target.sequences, now_ns, &wake_ns)
    while overdue != NULL:
        following = overdue.next
        int_store(&overdue.state, SETTLED)
        overdue.next = expired
        expired = overdue
        overdue = following
    if wake_ns != 0:
        wake_by(target, wake_ns)
    end_idle(target.sequences, now_ns)
    take_turns(target)
    return expired


cdef void end_turns(batcher* target, request* batch, int64_t ended_ns, const failure* error) noexcept nogil:
    """Let the requests of a run leave their sequences, and those behind them go; before any of them is settled."""
    while batch != NULL:
        leave_sequence(target.sequences, batch, error.code == OK and batch.error.code == OK and not batch.cancelled,
                       ended_ns)
        batch = batch.next
    take_turns(target)
    start_or_wait(target, ended_ns)


cdef void set_closing(batcher* target, bint is_closing) noexcept nogil:
    """Have what waits run at once from now on, and every sequence that waits go on; or end that."""
    target.closing = is_closing
    if target.sequences != NULL:
        set_unbounded(target.sequences, is_closing)
        take_turns(target)
