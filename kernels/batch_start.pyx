"""Starts batches: as soon as there is a place for one and the rules of batching have it run; else the timer comes back.

Everything here is done under the batcher's lock.
"""

from libc.stdint cimport int32_t, int64_t

from kernels.batch_rules cimport STAY, batch_choice, choose_batch, take_batch
from kernels.batcher cimport batcher
from kernels.executor cimport schedule, set_alarm
from kernels.pipeline cimport buffer_set, pipeline
from kernels.request cimport request
from kernels.request_queue cimport find_oldest_arrival
from kernels.settle_order cimport line_up
from kernels.sync cimport int_add, int_load, pthread_cond_broadcast


cdef int64_t count_waiting(const batcher* target) noexcept nogil:
    """Return how many requests wait, those for their turn in a sequence among them."""
    return target.queue.requests if target.sequences == NULL else target.queue.requests + target.sequences.waiting


cdef bint is_idle(batcher* target) noexcept nogil:
    return count_waiting(target) == 0 and target.running == 0 and not target.scheduled


cdef void tell_if_idle(batcher* target) noexcept nogil:
    if is_idle(target):
        pthread_cond_broadcast(&target.idle)


cdef void wake_by(batcher* target, int64_t due_ns) noexcept nogil:
    """Have the timer look at the queue at `due_ns` at the latest."""
    if target.alarm_ns == 0 or due_ns < target.alarm_ns:
        target.alarm_ns = due_ns
        set_alarm(target.pool, &target.task, due_ns)


cdef bint can_start(batcher* target) noexcept nogil:
    return target.unused != NULL or choose_pipeline(target) != NULL


cdef batch_choice choose_now(batcher* target, int64_t now_ns) noexcept nogil:
    return choose_batch(&target.rules, &target.accepted, &target.queue, now_ns, target.closing, target.running > 0)


cdef void start_or_wait(batcher* target, int64_t now_ns) noexcept nogil:
    """Schedule a run when one may start; when only the delay forbids it, have the timer come back."""
    if target.queue.requests == 0 or target.scheduled or not can_start(target):
        return
    if choose_now(target, now_ns).reason != STAY:
        target.scheduled = True
        schedule(target.pool, &target.task)
    else:
        wake_by(target, find_oldest_arrival(&target.queue) + target.rules.delay_ns)


cdef pipeline* choose_pipeline(batcher* target) noexcept nogil:
    """Return where a batch may be gathered now: for a session that has nothing to run, or a full batch for any.

    So a batch stays open for as long as its session runs another. NULL when none may be, and without lanes.
    """
    cdef bint is_full = target.queue.rows >= target.accepted.max_batch_size
    cdef pipeline* chosen = NULL
    cdef pipeline* other
    cdef int32_t index
    cdef int pending, fewest = 0
    for index in range(target.n_pipelines):
        other = &target.pipelines[index]
        pending = int_load(&other.pending)
        if other.unused != NULL and (pending == 0 or is_full) and (chosen == NULL or pending < fewest):
            chosen = other
            fewest = pending
    return chosen


cdef request* take_next(batcher* target, int64_t now_ns, bint has_place, int64_t* rows) noexcept nogil:
    """Take a batch that is to run now and count it; NULL when there is none, or none any more."""
    cdef batch_choice choice
    cdef request* batch
    if not has_place or target.queue.requests == 0:
        return NULL
    choice = choose_now(target, now_ns)
    if choice.reason == STAY:
        wake_by(target, find_oldest_arrival(&target.queue) + target.rules.delay_ns)
        return NULL
    batch = take_batch(&target.rules, &target.accepted, &target.queue, now_ns, choice.max_rows, rows)
    if batch == NULL:
        return NULL
    target.counts.dispatches[choice.reason] += 1
    target.running += 1
    target.taken_ns = now_ns
    target.taken_rows = rows[0]
    if target.order.is_kept:
        line_up(&target.order, batch)
    return batch


cdef buffer_set* take_set(pipeline* home) noexcept nogil:
    """Take a set for a batch that the session has yet to run."""
    cdef buffer_set* taken = home.unused
    home.unused = taken.next
    int_add(&home.pending, 1)
    return taken
