"""Runs an ensemble's steps as soon as their inputs are there, and settles the caller once, after all of them.

A step is a request of its own, queued with those of other callers of its model. What it reads lies in the caller's
message or in the replies of earlier steps, which stay until nobody reads them any more. Whatever thread settles a step
begins those that waited for it.

Every thread that is at work in a run has a hand in it, and so has each step that is under way: whoever takes the last
hand away ends the run. Lock order: the ensemble's batcher is never locked while another batcher's functions are called.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf

from kernels.batch_start cimport tell_if_idle
from kernels.batcher cimport batcher, cancel_request, settle_request
from kernels.batcher_counts cimport count_refusal
from kernels.ensemble_memory cimport end_run, open_run
from kernels.ensemble_plan cimport ensemble_plan, plan_step
from kernels.ensemble_results cimport encode_results
from kernels.ensemble_tensors cimport fill_step
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.queueing cimport admit_request
from kernels.request cimport (
    QUEUED, RUNNING, SETTLED, drop_reply, give_back_request, request, request_pool, take_request, was_withdrawn,
)
from kernels.signature cimport bind_request
from kernels.statistics cimport count_batch, count_failure
from kernels.status cimport CANCELLED, EXHAUSTED, EXPIRED, OK
from kernels.sync cimport counter_add, int_add, int_load, int_store, monotonic_ns, pthread_mutex_lock, pthread_mutex_unlock
from kernels.trace cimport trace_batch

cdef enum:
    SHOWN_ERROR_BYTES = 384   # of a step's error, behind the names of ensemble and step


cdef void start_ensemble(request_pool* requests, ensemble_plan* plan, request* client) noexcept nogil:
    """Run a request that is bound to an ensemble, or settle it as refused. Whoever calls keeps the plan meanwhile."""
    cdef batcher* home = plan.home
    cdef int64_t bytes_waiting = counter_add(home.pending_bytes, client.held_bytes)
    cdef ensemble_run* opened = NULL
    cdef run_step* ready
    client.batcher = home
    if bytes_waiting > home.max_pending_bytes:
        snprintf(client.error.text, FAILURE_TEXT_BYTES, "the server holds %ld bytes of requests; at most %ld may wait",
                 <long> bytes_waiting, <long> home.max_pending_bytes)
    else:
        opened = open_run(plan, client)
    if opened == NULL:
        client.error.code = EXHAUSTED
        count_refusal(home, client)
        settle_request(client)
        return
    opened.requests = requests
    ready = choose_steps(opened)
    # From here on a cancellation finds the run, which is complete.
    int_store(&client.state, RUNNING)
    begin_steps(opened, ready, opened.spent.taken_ns)
    if was_withdrawn(client):
        cancel_ensemble(client)
    take_hand(opened)


cdef void cancel_ensemble(request* unwanted) noexcept nogil:
    """Cancel the steps of a request that is under way; do nothing to a settled one. As cancel_request is called."""
    cdef batcher* home = <batcher*> unwanted.batcher
    cdef ensemble_run* run = NULL
    pthread_mutex_lock(&home.lock)
    if int_load(&unwanted.state) == RUNNING:
        unwanted.cancelled = True
        run = <ensemble_run*> unwanted.ensemble_run
        if run.hands > 0:
            run.is_stopped = True
            run.hands += 1
        else:
            run = NULL  # it is being settled, and will find the mark
    pthread_mutex_unlock(&home.lock)
    if run != NULL:
        cancel_steps(run)
        take_hand(run)


# ---- the beginning


cdef run_step* choose_steps(ensemble_run* run) noexcept nogil:
    """Mark the steps that the requested outputs need; return those that need nothing but the caller's tensors.

    Nobody else knows the run yet.
    """
    cdef ensemble_plan* plan = run.plan
    cdef run_step* step
    cdef run_step* ready = NULL
    cdef int32_t index, place, maker
    for index in range(run.client.n_outputs):
        maker = plan.tensors[plan.outputs[run.client.outputs[index]].tensor].step
        run.steps[maker].is_needed = True
        run.steps[maker].readers += 1
    for index in range(plan.n_steps - 1, -1, -1):
        step = &run.steps[index]
        if not step.is_needed:
            continue
        for place in range(plan.steps[index].n_inputs):
            maker = plan.tensors[plan.steps[index].links[place].tensor].step
            if maker >= 0:
                run.steps[maker].is_needed = True
                run.steps[maker].readers += 1
                step.missing += 1
        if step.missing == 0:
            step.ready = ready
            ready = step
            run.hands += 1
    return ready


cdef void begin_steps(ensemble_run* run, run_step* ready, int64_t arrival_ns) noexcept nogil:
    """Begin steps whose inputs are there since then; each has a hand in the run, and so has the calling thread."""
    cdef run_step* following
    while ready != NULL:
        following = ready.ready
        begin_step(run, ready, arrival_ns)
        ready = following


cdef void begin_step(ensemble_run* run, run_step* step, int64_t arrival_ns) noexcept nogil:
    """Admit a step's request to its model. Whatever becomes of it, settle_step hears of it."""
    cdef plan_step* planned = &run.plan.steps[step.index]
    cdef batcher* home = run.plan.home
    cdef request* asked = take_request(run.requests)
    cdef failure error
    cdef bint is_stopped
    if asked == NULL:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for a request")
        end_step(run, step, &error)
        return
    step.asked = asked
    asked.arrival_ns = arrival_ns
    asked.context = step
    asked.done = settle_step
    if fill_step(run, step, asked) != 0 or bind_request(&planned.target.accepted, asked) != 0:
        count_refusal(planned.target, asked)
        settle_request(asked)
        return
    if planned.inner == NULL:
        admit_request(planned.target, asked)
    else:
        start_ensemble(run.requests, planned.inner, asked)
    pthread_mutex_lock(&home.lock)
    step.is_admitted = True
    is_stopped = run.is_stopped
    pthread_mutex_unlock(&home.lock)
    if is_stopped:
        cancel_step(step)


# ---- the end of a step


cdef void settle_step(request* asked) noexcept nogil:
    """Called by whoever settles a step's request, from any thread."""
    cdef run_step* step = <run_step*> asked.context
    end_step(step.run, step, &asked.error)


cdef void end_step(ensemble_run* run, run_step* step, const failure* error) noexcept nogil:
    """Begin what waited for a step, or cancel all others when it has failed."""
    cdef batcher* home = run.plan.home
    cdef run_step* ready = NULL
    cdef bint stops = False
    if error.code == OK:
        step.held_bytes = <int64_t> step.asked.reply_size
        counter_add(home.pending_bytes, step.held_bytes)
    pthread_mutex_lock(&home.lock)
    if error.code == OK:
        run.spent.gather_ns += step.kept.gather_ns
        run.spent.run_ns += step.kept.run_ns
        run.spent.encode_ns += step.kept.encode_ns
        ready = take_ready(run, step)
    elif not run.is_stopped:
        stops = True
        run.is_stopped = True
        fail_run(run, step, error)
    pthread_mutex_unlock(&home.lock)
    if stops:
        cancel_steps(run)
    elif error.code == OK:
        release_sources(run, step)
        begin_steps(run, ready, step.kept.ended_ns)
    take_hand(run)


cdef run_step* take_ready(ensemble_run* run, const run_step* settled) noexcept nogil:
    """Return the steps that have waited for this one alone, each with a hand in the run. Under the lock."""
    cdef const plan_step* planned = &run.plan.steps[settled.index]
    cdef run_step* reader
    cdef run_step* ready = NULL
    cdef int32_t index
    if run.is_stopped:
        return NULL
    for index in range(planned.n_readers):
        reader = &run.steps[planned.readers[index]]
        if not reader.is_needed:
            continue
        reader.missing -= 1
        if reader.missing == 0:
            reader.ready = ready
            ready = reader
            run.hands += 1
    return ready


cdef void fail_run(ensemble_run* run, const run_step* step, const failure* error) noexcept nogil:
    cdef const batcher* target = run.plan.steps[step.index].target
    run.error.code = error.code
    snprintf(run.error.text, FAILURE_TEXT_BYTES, "in ensemble '%s', step '%s': %.*s", run.plan.home.served.model,
             target.served.model, SHOWN_ERROR_BYTES, error.text)


cdef void release_sources(ensemble_run* run, const run_step* step) noexcept nogil:
    """Free what a step has read and nobody reads any more."""
    cdef const plan_step* planned = &run.plan.steps[step.index]
    cdef run_step* maker
    cdef int32_t index, number
    for index in range(planned.n_inputs):
        number = run.plan.tensors[planned.links[index].tensor].step
        if number < 0:
            continue
        maker = &run.steps[number]
        if int_add(&maker.readers, -1) == 0:
            counter_add(run.plan.home.pending_bytes, -maker.held_bytes)
            maker.held_bytes = 0
            drop_reply(maker.asked)


cdef void cancel_steps(ensemble_run* run) noexcept nogil:
    """Cancel every step that is under way; the calling thread has a hand in the run."""
    cdef batcher* home = run.plan.home
    cdef bint is_admitted
    cdef int32_t index
    for index in range(run.plan.n_steps):
        pthread_mutex_lock(&home.lock)
        is_admitted = run.steps[index].is_admitted
        pthread_mutex_unlock(&home.lock)
        if is_admitted:
            cancel_step(&run.steps[index])


cdef void cancel_step(run_step* step) noexcept nogil:
    """Cancel a step that has been admitted; its request and its model's batcher stay as long as the run."""
    if int_load(&step.asked.state) not in (QUEUED, RUNNING):
        return
    if step.run.plan.steps[step.index].inner == NULL:
        cancel_request(step.asked)
    else:
        cancel_ensemble(step.asked)


# ---- the end of the run


cdef void take_hand(ensemble_run* run) noexcept nogil:
    """Take a hand away; the run is over and gone when it was the last."""
    cdef batcher* home = run.plan.home
    cdef bint is_over
    pthread_mutex_lock(&home.lock)
    run.hands -= 1
    is_over = run.hands == 0
    pthread_mutex_unlock(&home.lock)
    if is_over:
        finish_run(run)


cdef void finish_run(ensemble_run* run) noexcept nogil:
    """Answer the caller, once nothing of the run is under way."""
    cdef batcher* home = run.plan.home
    cdef request* client = run.client
    if run.error.code == OK and not run.is_stopped:
        encode_results(run)
    run.spent.ended_ns = monotonic_ns()
    pthread_mutex_lock(&home.lock)
    if client.cancelled:
        run.error.code = CANCELLED
        snprintf(run.error.text, FAILURE_TEXT_BYTES, "the request was cancelled while it ran")
    count_run(run)
    # From here on a cancellation comes too late: whoever takes the lock next finds the request settled.
    int_store(&client.state, SETTLED)
    pthread_mutex_unlock(&home.lock)
    if run.error.code != OK:
        client.error = run.error
    end_steps(run)
    end_run(run)
    settle_request(client)
    pthread_mutex_lock(&home.lock)
    home.running -= 1
    tell_if_idle(home)
    pthread_mutex_unlock(&home.lock)


cdef void count_run(ensemble_run* run) noexcept nogil:
    """Count a request as an execution of its own, as Triton does, with the times of its steps in all. Under the lock."""
    cdef batcher* home = run.plan.home
    cdef request* client = run.client
    cdef int code = run.error.code
    client.next = NULL
    if code in (EXHAUSTED, EXPIRED):
        count_failure(&home.counts, code, run.spent.ended_ns - client.arrival_ns)
        return
    count_batch(&home.counts, client, client.rows, &run.spent, code == OK)
    if code == OK and home.traced.rate > 0:
        trace_batch(&home.traced, home.served.model, home.version, client, &run.spent)


cdef void end_steps(ensemble_run* run) noexcept nogil:
    """Give the steps' requests back, with all that they hold."""
    cdef run_step* step
    cdef int32_t index
    for index in range(run.plan.n_steps):
        step = &run.steps[index]
        counter_add(run.plan.home.pending_bytes, -step.held_bytes)
        if step.asked != NULL:
            give_back_request(run.requests, step.asked)
