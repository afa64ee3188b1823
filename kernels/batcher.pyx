"""Runs the requests of one model version in batches of what has arrived, and takes back those that are not wanted any more.

Every admitted request is settled exactly once: with its reply, with its batch's failure, expired, or cancelled. Lock
order: a batcher's lock, then the executor's. `done` is called with no lock held.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from kernels.batch_start cimport choose_pipeline, is_idle, start_or_wait, take_next, take_set, tell_if_idle, wake_by
from kernels.buffers cimport close_instance, open_instance
from kernels.cached_answers cimport keep_answers
from kernels.executor cimport defer_tasks, drop_alarm, executor, schedule_deferred, task, task_list
from kernels.failure cimport failure
from kernels.instance cimport execute_batch, instance
from kernels.pipeline cimport buffer_set, close_pipeline, open_pipeline, pipeline, pipeline_owner, start_batch
from kernels.placement cimport open_placement, place_next
from kernels.request cimport QUEUED, RUNNING, SETTLED, request
from kernels.request_queue cimport close_queue, open_queue, take_expired
from kernels.sequences cimport close_sequences
from kernels.service_time cimport note_run
from kernels.session cimport session_core
from kernels.settle_order cimport take_front
from kernels.settling cimport set_error, settle_list, settle_request
from kernels.signature cimport signature
from kernels.statistics cimport batch_times, count_batch, count_expiry, free_statistics
from kernels.status cimport CANCELLED, EXPIRED, OK
from kernels.sync cimport (
    CLOCK_MONOTONIC, int_load, int_store, monotonic_ns, pthread_cond_broadcast, pthread_cond_destroy,
    pthread_cond_init, pthread_cond_timedwait, pthread_cond_wait, pthread_condattr_destroy, pthread_condattr_init,
    pthread_condattr_setclock, pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, timespec,
)
from kernels.trace cimport trace_batch
from kernels.turns cimport drop_cancelled, end_turns, expire_turns, set_closing


cdef int open_batcher(batcher* made, executor* pool, const signature* accepted, const char* name, size_t name_size,
                      int64_t version, int32_t n_instances, int32_t n_levels) noexcept nogil:
    """Make an empty queue; limits and rules are the caller's to set. 0, or -1 without memory (close_batcher frees).

    Without instances, open_lanes must follow.
    """
    cdef pthread_condattr_t monotonic
    cdef int32_t index
    memset(made, 0, sizeof(batcher))
    made.task.run = run_ready
    made.task.ring = ring_alarm
    made.pool = pool
    made.accepted = accepted[0]
    open_placement(&made.place, accepted)
    pthread_mutex_init(&made.lock, NULL)
    pthread_condattr_init(&monotonic)
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC)
    pthread_cond_init(&made.idle, &monotonic)
    pthread_condattr_destroy(&monotonic)
    made.version = version
    made.served.version_size = snprintf(made.served.version, sizeof(made.served.version), "%ld", <long> version)
    made.served.model_size = name_size
    made.served.model = <char*> malloc(name_size + 1)
    made.instances = <instance*> calloc(n_instances + 1, sizeof(instance))
    if open_queue(&made.queue, n_levels) != 0 or made.served.model == NULL or made.instances == NULL:
        return -1
    memcpy(made.served.model, name, name_size)
    made.served.model[name_size] = 0
    made.n_instances = n_instances
    for index in range(n_instances):
        if open_instance(&made.instances[index], &made.accepted, made.accepted.core, &made.served) != 0:
            return -1
        made.instances[index].next = made.unused
        made.unused = &made.instances[index]
    return 0


cdef int open_lanes(batcher* made, session_core** cores, int32_t n_cores, int32_t n_sets) noexcept nogil:
    """Give each session a lane and `n_sets` sets of buffers. 0, or -1 without memory or thread (close_batcher frees)."""
    cdef int32_t index
    made.owner.pool = made.pool
    made.owner.batcher = made
    made.owner.settle = settle_run
    made.owner.session_freed = start_next
    made.owner.set_freed = take_back
    made.pipelines = <pipeline*> calloc(n_cores, sizeof(pipeline))
    if made.pipelines == NULL:
        return -1
    made.n_pipelines = n_cores
    for index in range(n_cores):
        if open_pipeline(&made.pipelines[index], &made.owner, &made.accepted, cores[index], &made.served, n_sets) != 0:
            return -1
    return 0


cdef void close_batcher(batcher* used) noexcept nogil:
    """Free an idle batcher that nobody can reach any more."""
    cdef int32_t index
    drop_alarm(used.pool, &used.task)
    for index in range(used.n_pipelines):
        close_pipeline(&used.pipelines[index])
    free(used.pipelines)
    for index in range(used.n_instances):
        close_instance(&used.instances[index])
    free(used.instances)
    free(used.served.model)
    close_queue(&used.queue)
    free_statistics(&used.counts)
    close_sequences(used.sequences)
    pthread_mutex_destroy(&used.lock)
    pthread_cond_destroy(&used.idle)


cdef void hold_batcher(batcher* held) noexcept nogil:
    """Keep a batcher that can be reached from being freed until it is released."""
    pthread_mutex_lock(&held.lock)
    held.holds += 1
    pthread_mutex_unlock(&held.lock)


cdef void release_batcher(batcher* held) noexcept nogil:
    pthread_mutex_lock(&held.lock)
    held.holds -= 1
    pthread_cond_broadcast(&held.idle)
    pthread_mutex_unlock(&held.lock)


cdef void wait_released(batcher* target) noexcept nogil:
    """Wait until nobody holds a batcher that no table leads to: it is admitted to no more. What it has runs at once."""
    pthread_mutex_lock(&target.lock)
    set_closing(target, True)
    start_or_wait(target, monotonic_ns())
    while target.holds > 0:
        pthread_cond_wait(&target.idle, &target.lock)
    set_closing(target, False)
    pthread_mutex_unlock(&target.lock)


# ---- callers' side


cdef void cancel_request(request* unwanted) noexcept nogil:
    """Settle a queued request as cancelled; drop the reply of a running one; do nothing to a settled one.

    The caller holds a read section open, so that the batcher cannot go away meanwhile.
    """
    cdef batcher* home = <batcher*> unwanted.batcher
    cdef bint queued
    cdef int state
    pthread_mutex_lock(&home.lock)
    # Written again, outside the lock, by who settles.
    state = int_load(&unwanted.state)
    queued = state == QUEUED
    if queued:
        drop_cancelled(home, unwanted)
    elif state == RUNNING:
        unwanted.cancelled = True
    pthread_mutex_unlock(&home.lock)
    if queued:
        settle_request(unwanted)


cdef void begin_closing(batcher* target) noexcept nogil:
    """Have what waits, and what comes, run without waiting for more, until wait_idle has come to its end."""
    pthread_mutex_lock(&target.lock)
    set_closing(target, True)
    start_or_wait(target, monotonic_ns())
    pthread_mutex_unlock(&target.lock)


cdef bint wait_idle(batcher* target, int64_t until_ns) noexcept nogil:
    """Run what is queued without waiting for more, until nothing is left or the time has come. True when idle."""
    cdef timespec until
    cdef bint idle
    until.tv_sec = until_ns // 1000000000
    until.tv_nsec = until_ns % 1000000000
    pthread_mutex_lock(&target.lock)
    set_closing(target, True)
    start_or_wait(target, monotonic_ns())
    while not is_idle(target) and monotonic_ns() < until_ns:
        pthread_cond_timedwait(&target.idle, &target.lock, &until)
    idle = is_idle(target)
    set_closing(target, False)
    pthread_mutex_unlock(&target.lock)
    return idle


# ---- executor's side


cdef void ring_alarm(task* due) noexcept nogil:
    """Settle what has expired and start what has waited long enough. On the timer thread."""
    cdef batcher* target = <batcher*> due
    cdef int64_t now_ns = monotonic_ns(), wake_ns
    cdef request* expired
    cdef request* member
    pthread_mutex_lock(&target.lock)
    target.alarm_ns = 0
    expired = take_expired(&target.queue, now_ns, &wake_ns)
    if wake_ns != 0:
        wake_by(target, wake_ns)
    if target.sequences != NULL:
        expired = expire_turns(target, expired, now_ns)
    member = expired
    while member != NULL:
        count_expiry(&target.counts, member, now_ns)
        member = member.next
    start_or_wait(target, now_ns)
    tell_if_idle(target)
    pthread_mutex_unlock(&target.lock)
    member = expired
    while member != NULL:
        set_error(member, EXPIRED, expiry_text(member))
        member = member.next
    settle_list(expired)


cdef const char* expiry_text(const request* expired) noexcept nogil:
    if expired.deadline_ns != 0 and expired.deadline_ns <= expired.give_up_ns:
        return b"Deadline Exceeded while the request was queued"
    return b"the request's timeout passed while it was queued"


cdef void run_ready(task* ready) noexcept nogil:
    """Form one batch and run it, or send it on its way. On a worker or inline.

    Nothing is touched once the batcher may be idle and gone.
    """
    cdef batcher* target = <batcher*> ready
    cdef int64_t now_ns = monotonic_ns(), rows
    cdef pipeline* free_lane = NULL
    cdef buffer_set* taken
    cdef instance* chosen
    cdef request* batch
    cdef bint decides
    pthread_mutex_lock(&target.lock)
    target.scheduled = False
    chosen = target.unused
    if chosen == NULL:
        # A full batch may be one no longer, after cancellations: then it stays open.
        free_lane = choose_pipeline(target)
    batch = take_next(target, now_ns, chosen != NULL or free_lane != NULL, &rows)
    if batch == NULL:
        tell_if_idle(target)
        pthread_mutex_unlock(&target.lock)
        return
    if free_lane != NULL:
        taken = take_set(free_lane)
        taken.buffers.taken_ns = now_ns
        start_or_wait(target, now_ns)
        pthread_mutex_unlock(&target.lock)
        start_batch(taken, batch, rows)
        return
    target.unused = chosen.next
    chosen.taken_ns = now_ns
    decides = not target.is_placing
    target.is_placing = True
    start_or_wait(target, now_ns)
    pthread_mutex_unlock(&target.lock)
    run_requests(target, chosen, batch, rows)
    if decides:
        place_next(&target.place, chosen)
    pthread_mutex_lock(&target.lock)
    if decides:
        target.is_placing = False
        int_store(&target.task.is_inline, target.place.is_inline)
    target.running -= 1
    chosen.next = target.unused
    target.unused = chosen
    start_or_wait(target, monotonic_ns())
    tell_if_idle(target)
    pthread_mutex_unlock(&target.lock)


cdef void run_requests(batcher* target, instance* chosen, request* batch, int64_t rows) noexcept nogil:
    """Run a batch and settle it. When a batch of several fails, each is run alone: one must not fail the others."""
    cdef failure error
    cdef request* following
    error.code = OK
    if execute_batch(chosen, batch, rows, chosen.taken_ns, &error) == 0 or batch.next == NULL:
        finish_requests(target, chosen, batch, rows, &error)
        return
    while batch != NULL:
        following = batch.next
        batch.next = NULL
        error.code = OK
        execute_batch(chosen, batch, batch.rows, chosen.ended_ns, &error)
        finish_requests(target, chosen, batch, batch.rows, &error)
        batch = following


cdef void finish_requests(batcher* target, instance* chosen, request* batch, int64_t rows,
                          const failure* error) noexcept nogil:
    """Count a run and settle its requests, with `error` when it failed."""
    cdef request* member = batch
    cdef task_list ready = task_list(NULL, NULL)
    cdef executor* pool = target.pool
    cdef bint has_steps = False
    if target.cache != NULL and error.code == OK:
        keep_answers(target, batch)
    pthread_mutex_lock(&target.lock)
    count_run(target, chosen, batch, rows, error)
    # Who comes before the instance is back has no run to wait for all the same.
    target.taken_ns = 0
    if target.sequences != NULL:
        end_turns(target, batch, chosen.ended_ns, error)
    while member != NULL:
        if member.cancelled:
            set_error(member, CANCELLED, "the request was cancelled while it ran")
        elif error.code != OK:
            member.error = error[0]
        # From here on a cancellation comes too late: whoever takes the lock next finds the request settled.
        int_store(&member.state, SETTLED)
        has_steps = has_steps or member.kept != NULL
        member = member.next
    if target.order.is_kept:
        settle_in_order(target)
        batch = NULL
    pthread_mutex_unlock(&target.lock)
    if has_steps:
        # So that the steps that follow of all of them run as one batch.
        defer_tasks(&ready)
    settle_list(batch)
    if has_steps:
        schedule_deferred(pool, &ready)


cdef void settle_in_order(batcher* target) noexcept nogil:
    """Settle whose turn has come, one thread at a time; the lock, which is held, is left meanwhile.

    Whoever leaves that to another thread leaves it to a run that is not over, so that the batcher is not idle.
    """
    cdef request* front
    cdef request* following
    if target.order.is_settling:
        return
    target.order.is_settling = True
    front = take_front(&target.order)
    while front != NULL:
        pthread_mutex_unlock(&target.lock)
        while front != NULL:
            following = front.after
            settle_request(front)
            front = following
        pthread_mutex_lock(&target.lock)
        front = take_front(&target.order)
    target.order.is_settling = False


cdef void count_run(batcher* target, const instance* chosen, const request* batch, int64_t rows,
                    const failure* error) noexcept nogil:
    cdef batch_times spent = batch_times(chosen.taken_ns + chosen.wait_ns, chosen.ended_ns, chosen.gather_ns,
                                         chosen.run_ns, chosen.encode_ns)
    count_batch(&target.counts, batch, rows, &spent, error.code == OK)
    if target.refuses_late and error.code == OK:
        note_run(&target.known, rows, spent.run_ns)
    if target.traced.rate > 0:
        trace_batch(&target.traced, target.served.model, target.version, batch, &spent)


# ---- what pipelines tell


cdef void settle_run(pipeline_owner* owner, instance* used, request* batch, int64_t rows,
                     const failure* error) noexcept nogil:
    finish_requests(<batcher*> owner.batcher, used, batch, rows, error)


cdef void start_next(pipeline_owner* owner) noexcept nogil:
    """Start what has waited for a session to come free. On the lane, most often."""
    cdef batcher* target = <batcher*> owner.batcher
    pthread_mutex_lock(&target.lock)
    start_or_wait(target, monotonic_ns())
    pthread_mutex_unlock(&target.lock)


cdef void take_back(pipeline_owner* owner, buffer_set* used) noexcept nogil:
    """Count a batch as done; nothing is touched afterwards."""
    cdef batcher* target = <batcher*> owner.batcher
    pthread_mutex_lock(&target.lock)
    target.running -= 1
    used.next = used.home.unused
    used.home.unused = used
    start_or_wait(target, monotonic_ns())
    tell_if_idle(target)
    pthread_mutex_unlock(&target.lock)
