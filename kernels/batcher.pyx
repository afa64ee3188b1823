"""Admits requests into one model version's queue and runs them in batches of what has arrived.

Every admitted request is settled exactly once: with its reply, with its batch's failure, expired, or cancelled. Lock
order: a batcher's lock, then the executor's. `done` is called with no lock held.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from kernels.executor cimport drop_alarm, executor, schedule, set_alarm, task
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.instance cimport close_instance, execute_batch, instance, open_instance
from kernels.placement cimport open_placement, place_next
from kernels.request cimport QUEUED, RUNNING, SETTLED, request
from kernels.signature cimport can_merge, signature
from kernels.statistics cimport (
    batch_times, copy_statistics, count_batch, count_failure, counters, free_statistics, statistics,
)
from kernels.status cimport CANCELLED, EXHAUSTED, EXPIRED, OK
from kernels.sync cimport (
    CLOCK_MONOTONIC, counter_add, int_load, int_store, monotonic_ns, pthread_cond_broadcast, pthread_cond_destroy,
    pthread_cond_init, pthread_cond_timedwait, pthread_condattr_destroy, pthread_condattr_init,
    pthread_condattr_setclock, pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, timespec,
)
from kernels.trace cimport trace_batch

cdef enum:
    SCANNED_REQUESTS = 256   # how far behind its head a queue is searched for requests that fit the batch


cdef int open_batcher(batcher* made, executor* pool, const signature* accepted, const char* name, size_t name_size,
                      int64_t version, int32_t n_instances) noexcept nogil:
    """Make an empty queue; limits and delay are the caller's to set. 0, or -1 without memory (close_batcher frees)."""
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
    made.instances = <instance*> calloc(n_instances, sizeof(instance))
    if made.served.model == NULL or made.instances == NULL:
        return -1
    memcpy(made.served.model, name, name_size)
    made.served.model[name_size] = 0
    made.n_instances = n_instances
    for index in range(n_instances):
        if open_instance(&made.instances[index], &made.accepted, &made.served) != 0:
            return -1
        made.instances[index].next = made.unused
        made.unused = &made.instances[index]
    return 0


cdef void close_batcher(batcher* used) noexcept nogil:
    """Free an idle batcher that nobody can reach any more."""
    cdef int32_t index
    drop_alarm(used.pool, &used.task)
    for index in range(used.n_instances):
        close_instance(&used.instances[index])
    free(used.instances)
    free(used.served.model)
    free_statistics(&used.counts)
    pthread_mutex_destroy(&used.lock)
    pthread_cond_destroy(&used.idle)


# ---- callers' side


cdef void admit_request(batcher* target, request* admitted) noexcept nogil:
    """Queue a bound request, or settle it as refused."""
    cdef int64_t bytes_waiting = counter_add(target.pending_bytes, admitted.held_bytes)
    cdef bint full = bytes_waiting > target.max_pending_bytes
    admitted.batcher = target
    if full:
        snprintf(admitted.error.text, FAILURE_TEXT_BYTES, "the server holds %ld bytes of requests; at most %ld may wait",
                 <long> bytes_waiting, <long> target.max_pending_bytes)
    else:
        pthread_mutex_lock(&target.lock)
        full = target.queued >= target.max_queued
        if full:
            snprintf(admitted.error.text, FAILURE_TEXT_BYTES, "the queue of model '%s' version %s is full: %ld requests wait",
                     target.served.model, target.served.version, <long> target.queued)
        else:
            append_request(target, admitted)
            start_or_wait(target, admitted.arrival_ns)
        pthread_mutex_unlock(&target.lock)
    if full:
        admitted.error.code = EXHAUSTED
        count_refusal(target, admitted)
        settle_request(admitted)


cdef void count_refusal(batcher* target, const request* refused) noexcept nogil:
    """Count a request that is not admitted, by its error."""
    pthread_mutex_lock(&target.lock)
    count_failure(&target.counts, refused.error.code, 0)
    pthread_mutex_unlock(&target.lock)


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
        unlink_request(home, unwanted)
        int_store(&unwanted.state, SETTLED)
        count_failure(&home.counts, CANCELLED, monotonic_ns() - unwanted.arrival_ns)
        tell_if_idle(home)
    elif state == RUNNING:
        unwanted.cancelled = True
    pthread_mutex_unlock(&home.lock)
    if queued:
        fail_request(unwanted, CANCELLED, "the request was cancelled while it was queued")


cdef void settle_request(request* settled) noexcept nogil:
    """Hand a request with its reply or error to its owner. The engine touches it no more."""
    cdef batcher* home = <batcher*> settled.batcher
    if home != NULL:
        counter_add(home.pending_bytes, -settled.held_bytes)
    int_store(&settled.state, SETTLED)
    settled.done(settled)


cdef bint wait_idle(batcher* target, int64_t until_ns) noexcept nogil:
    """Run what is queued without waiting for more, until nothing is left or the time has come. True when idle."""
    cdef timespec until
    cdef bint idle
    until.tv_sec = until_ns // 1000000000
    until.tv_nsec = until_ns % 1000000000
    pthread_mutex_lock(&target.lock)
    target.closing = True
    start_or_wait(target, monotonic_ns())
    while not is_idle(target) and monotonic_ns() < until_ns:
        pthread_cond_timedwait(&target.idle, &target.lock, &until)
    idle = is_idle(target)
    target.closing = False
    pthread_mutex_unlock(&target.lock)
    return idle


cdef int64_t read_counts(batcher* target, counters* total, int64_t* running, bint* is_inline) noexcept nogil:
    """Copy the counters, how many batches run, and where, as they are at one moment; return how many requests wait."""
    cdef int64_t queued
    pthread_mutex_lock(&target.lock)
    total[0] = target.counts.total
    queued = target.queued
    running[0] = target.running
    is_inline[0] = target.task.is_inline
    pthread_mutex_unlock(&target.lock)
    return queued


cdef void set_trace_rate(batcher* target, int64_t rate) noexcept nogil:
    """Trace one request in `rate` from now on, beginning with the next; none for 0."""
    pthread_mutex_lock(&target.lock)
    target.traced.rate = rate
    target.traced.passed = 0
    pthread_mutex_unlock(&target.lock)


cdef int64_t read_statistics(batcher* target, statistics* copied) noexcept nogil:
    """Copy all that is counted, to be freed by free_statistics; return how many requests wait, -1 without memory."""
    cdef int64_t queued
    pthread_mutex_lock(&target.lock)
    queued = target.queued if copy_statistics(copied, &target.counts) == 0 else -1
    pthread_mutex_unlock(&target.lock)
    return queued


cdef void reset_counts(batcher* target) noexcept nogil:
    """Forget what was counted so far, for a version that is put in place: a warm-up is nobody's use of the model."""
    pthread_mutex_lock(&target.lock)
    target.last_used_ns = monotonic_ns()
    free_statistics(&target.counts)
    memset(&target.counts, 0, sizeof(statistics))
    pthread_mutex_unlock(&target.lock)


cdef bint read_use(batcher* target, int64_t* last_used_ns) noexcept nogil:
    """Tell when the version was last asked for; True while it has requests."""
    cdef bint is_used
    pthread_mutex_lock(&target.lock)
    last_used_ns[0] = target.last_used_ns
    is_used = not is_idle(target)
    pthread_mutex_unlock(&target.lock)
    return is_used


# ---- the queue; all under the batcher's lock


cdef void append_request(batcher* target, request* admitted) noexcept nogil:
    admitted.next = NULL
    admitted.previous = target.last
    if target.last == NULL:
        target.first = admitted
    else:
        target.last.next = admitted
    target.last = admitted
    target.queued += 1
    target.queued_rows += admitted.rows
    # A request that waited for the version to be loaded came before that.
    target.last_used_ns = max(target.last_used_ns, admitted.arrival_ns)
    int_store(&admitted.state, QUEUED)
    if admitted.deadline_ns != 0:
        wake_by(target, admitted.deadline_ns)
        if admitted.deadline_ns <= target.first.arrival_ns + target.delay_ns:
            target.hurried = True


cdef void unlink_request(batcher* target, request* leaving) noexcept nogil:
    if leaving.previous == NULL:
        target.first = leaving.next
    else:
        leaving.previous.next = leaving.next
    if leaving.next == NULL:
        target.last = leaving.previous
    else:
        leaving.next.previous = leaving.previous
    leaving.next = NULL
    leaving.previous = NULL
    target.queued -= 1
    target.queued_rows -= leaving.rows


cdef bint is_idle(batcher* target) noexcept nogil:
    return target.queued == 0 and target.running == 0 and not target.scheduled


cdef void tell_if_idle(batcher* target) noexcept nogil:
    if is_idle(target):
        pthread_cond_broadcast(&target.idle)


cdef void wake_by(batcher* target, int64_t due_ns) noexcept nogil:
    """Have the timer look at the queue at `due_ns` at the latest."""
    if target.alarm_ns == 0 or due_ns < target.alarm_ns:
        target.alarm_ns = due_ns
        set_alarm(target.pool, &target.task, due_ns)


cdef void start_or_wait(batcher* target, int64_t now_ns) noexcept nogil:
    """Schedule a run when one may start; when only the delay forbids it, have the timer come back."""
    if target.queued == 0 or target.scheduled or target.unused == NULL:
        return
    if (target.delay_ns == 0 or target.closing or target.hurried or target.queued_rows >= target.accepted.max_batch_size
            or target.first.arrival_ns + target.delay_ns <= now_ns):
        target.scheduled = True
        schedule(target.pool, &target.task)
    else:
        wake_by(target, target.first.arrival_ns + target.delay_ns)


cdef bint has_expired(const request* member, int64_t now_ns) noexcept nogil:
    return member.deadline_ns != 0 and member.deadline_ns <= now_ns


cdef request* take_expired(batcher* target, int64_t now_ns) noexcept nogil:
    """Unlink every request whose deadline has passed; return them linked by `next`. Sets the next alarm."""
    cdef request* expired = NULL
    cdef request* member = target.first
    cdef request* following
    cdef int64_t earliest = INT64_MAX
    while member != NULL:
        following = member.next
        if has_expired(member, now_ns):
            unlink_request(target, member)
            # Before the lock is left: a cancellation that comes now must not find it queued and settle it again.
            int_store(&member.state, SETTLED)
            count_failure(&target.counts, EXPIRED, now_ns - member.arrival_ns)
            member.next = expired
            expired = member
        elif member.deadline_ns != 0:
            earliest = min(earliest, member.deadline_ns)
        member = following
    if earliest != INT64_MAX:
        wake_by(target, earliest)
    return expired


cdef request* take_batch(batcher* target, int64_t now_ns, int64_t* rows) noexcept nogil:
    """Unlink the oldest request and those behind it that fit with it, up to max_batch_size rows.

    What has expired is left to the timer, which is on its way to settle it.
    """
    cdef request* head = target.first
    cdef request* tail
    cdef request* member
    cdef request* following
    cdef int32_t scanned = 0
    rows[0] = 0
    while head != NULL and has_expired(head, now_ns):
        head = head.next
    if head == NULL:
        return NULL
    tail = head
    member = head.next
    target.hurried = False
    start_request(target, head, rows)
    while member != NULL and rows[0] < target.accepted.max_batch_size and scanned < SCANNED_REQUESTS:
        following = member.next
        if (rows[0] + member.rows <= target.accepted.max_batch_size and not has_expired(member, now_ns)
                and can_merge(&target.accepted, head, member)):
            start_request(target, member, rows)
            tail.next = member
            tail = member
        member = following
        scanned += 1
    return head


cdef void start_request(batcher* target, request* member, int64_t* rows) noexcept nogil:
    unlink_request(target, member)
    int_store(&member.state, RUNNING)
    rows[0] += member.rows


# ---- executor's side


cdef void ring_alarm(task* due) noexcept nogil:
    """Settle what has expired and start what has waited long enough. On the timer thread."""
    cdef batcher* target = <batcher*> due
    cdef int64_t now_ns = monotonic_ns()
    cdef request* expired
    pthread_mutex_lock(&target.lock)
    target.alarm_ns = 0
    expired = take_expired(target, now_ns)
    start_or_wait(target, now_ns)
    tell_if_idle(target)
    pthread_mutex_unlock(&target.lock)
    fail_list(expired, EXPIRED, "the deadline passed while the request was queued")


cdef void run_ready(task* ready) noexcept nogil:
    """Form one batch and run it. On a worker or inline; nothing is touched once the batcher may be idle and gone."""
    cdef batcher* target = <batcher*> ready
    cdef int64_t now_ns = monotonic_ns(), rows
    cdef instance* chosen
    cdef request* batch
    cdef bint decides
    pthread_mutex_lock(&target.lock)
    target.scheduled = False
    chosen = target.unused
    batch = take_batch(target, now_ns, &rows)
    if batch == NULL:
        tell_if_idle(target)
        pthread_mutex_unlock(&target.lock)
        return
    target.unused = chosen.next
    chosen.taken_ns = now_ns
    target.running += 1
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
        target.task.is_inline = target.place.is_inline
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
    if execute_batch(chosen, batch, rows, &error) == 0 or batch.next == NULL:
        finish_requests(target, chosen, batch, rows, &error)
        return
    while batch != NULL:
        following = batch.next
        batch.next = NULL
        error.code = OK
        execute_batch(chosen, batch, batch.rows, &error)
        finish_requests(target, chosen, batch, batch.rows, &error)
        batch = following


cdef void finish_requests(batcher* target, instance* chosen, request* batch, int64_t rows,
                          const failure* error) noexcept nogil:
    """Count a run and settle its requests, with `error` when it failed."""
    cdef request* following
    cdef request* member = batch
    pthread_mutex_lock(&target.lock)
    count_run(target, chosen, batch, rows, error)
    # From here on a cancellation comes too late: whoever takes the lock next finds the request settled.
    while member != NULL:
        int_store(&member.state, SETTLED)
        member = member.next
    pthread_mutex_unlock(&target.lock)
    while batch != NULL:
        following = batch.next
        if batch.cancelled:
            fail_request(batch, CANCELLED, "the request was cancelled while it ran")
        else:
            if error.code != OK:
                batch.error = error[0]
            settle_request(batch)
        batch = following


cdef void count_run(batcher* target, const instance* chosen, const request* batch, int64_t rows,
                    const failure* error) noexcept nogil:
    cdef batch_times spent = batch_times(
        chosen.taken_ns, chosen.ended_ns, chosen.gather_ns, chosen.run_ns, chosen.encode_ns)
    count_batch(&target.counts, batch, rows, &spent, error.code == OK)
    if target.traced.rate > 0:
        trace_batch(&target.traced, target.served.model, target.version, batch, &spent)


cdef void fail_request(request* refused, int code, const char* text) noexcept nogil:
    refused.error.code = code
    snprintf(refused.error.text, FAILURE_TEXT_BYTES, "%s", text)
    settle_request(refused)


cdef void fail_list(request* refused, int code, const char* text) noexcept nogil:
    cdef request* following
    while refused != NULL:
        following = refused.next
        fail_request(refused, code, text)
        refused = following
