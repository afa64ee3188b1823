"""Admits requests: into their version's queue, or behind the others of their sequence, unless they may not wait there."""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf

from kernels.admission cimport comes_too_late, workload
from kernels.batch_start cimport can_start, start_or_wait, wake_by
from kernels.batcher cimport batcher
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.request cimport request, was_withdrawn
from kernels.request_queue cimport append_request, choose_level, is_full, queue_level
from kernels.sequences cimport count_ahead
from kernels.settling cimport settle_request
from kernels.statistics cimport count_failure, count_late
from kernels.status cimport EXHAUSTED
from kernels.sync cimport counter_add, pthread_mutex_lock, pthread_mutex_unlock
from kernels.turns cimport drop_cancelled, join_turn


cdef void admit_request(batcher* target, request* admitted) noexcept nogil:
    """Queue a bound request, or settle it as refused."""
    cdef int64_t bytes_waiting = counter_add(target.pending_bytes, admitted.held_bytes)
    cdef bint refused = bytes_waiting > target.max_pending_bytes
    admitted.batcher = target
    pthread_mutex_lock(&target.lock)
    if refused:
        refuse_bytes(target, admitted, bytes_waiting)
    else:
        # A request that waited for the version to be loaded came before that.
        target.last_used_ns = max(target.last_used_ns, admitted.arrival_ns)
        refused = queue_request(target, admitted) != 0
        if not refused and was_withdrawn(admitted):
            drop_cancelled(target, admitted)
            refused = True
    pthread_mutex_unlock(&target.lock)
    if refused:
        settle_request(admitted)


cdef int queue_request(batcher* target, request* admitted) noexcept nogil:
    """Have a request wait and start what may run now. 0, or -1 when it is refused, with its error set."""
    cdef queue_level* level = choose_level(&target.queue, admitted.priority)
    cdef int64_t due_ns
    if check_room(target, level, admitted) != 0:
        return -1
    if admitted.deadline_ns != 0 and target.refuses_late and is_too_late(target, admitted):
        count_late(&target.counts)
        return -1
    if target.sequences == NULL:
        due_ns = append_request(&target.queue, level, admitted)
        if due_ns != 0:
            wake_by(target, due_ns)
    elif join_turn(target, level, admitted) != 0:
        count_failure(&target.counts, admitted.error.code, 0)
        return -1
    if not target.scheduled:
        start_or_wait(target, admitted.arrival_ns)
    return 0


cdef int check_room(batcher* target, const queue_level* level, request* admitted) noexcept nogil:
    cdef bint is_level_full = is_full(level)
    cdef int64_t waiting = target.queue.requests
    if target.sequences != NULL:
        waiting = count_ahead(target.sequences, admitted, waiting)
    if not is_level_full and waiting < target.max_queued:
        return 0
    admitted.error.code = EXHAUSTED
    snprintf(admitted.error.text, FAILURE_TEXT_BYTES, "the queue of model '%s' version %s is full: %ld requests wait%s",
             target.served.model, target.served.version, <long> (level.requests if is_level_full else waiting),
             b" at this priority" if is_level_full and target.queue.n_levels > 1 else b"")
    count_failure(&target.counts, EXHAUSTED, 0)
    return -1


cdef bint is_too_late(batcher* target, request* admitted) noexcept nogil:
    cdef workload load = workload(
        &target.queue, &target.known, target.accepted.max_batch_size, max(target.n_instances, target.n_pipelines),
        can_start(target), target.taken_ns, target.taken_rows)
    return comes_too_late(&load, admitted)


cdef void refuse_bytes(batcher* target, request* refused, int64_t bytes_waiting) noexcept nogil:
    refused.error.code = EXHAUSTED
    snprintf(refused.error.text, FAILURE_TEXT_BYTES, "the server holds %ld bytes of requests; at most %ld may wait",
             <long> bytes_waiting, <long> target.max_pending_bytes)
    count_failure(&target.counts, EXHAUSTED, 0)
