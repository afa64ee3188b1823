"""Runs an ensemble's steps as soon as their inputs are there, and settles the caller once, after all of them.

A step is a request of its own, queued with those of other callers of its model. What it reads lies in the caller's
message or in the replies of earlier steps, which stay until nobody reads them any more. Whatever thread settles a step
begins those that waited for it.

What goes to a step that keeps sequences goes there in the order in which the ensemble got it: sequence_gate.pxd.

Every thread that is at work in a run has a hand in it, and so has each step that is under way: whoever takes the last
hand away ends the run. Lock order: the ensemble's batcher is never locked while another batcher's functions are called,
nor while the gate's are.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf

from kernels.batch_start cimport tell_if_idle
from kernels.batcher cimport batcher, cancel_request, release_batcher, settle_request
from kernels.batcher_counts cimport count_refusal
from kernels.cached_answers cimport find_answer, keep_answers
from kernels.ensemble_memory cimport end_run, open_run
from kernels.ensemble_plan cimport ensemble_plan, plan_step
from kernels.ensemble_progress cimport choose_steps, end_step, release_sources
from kernels.ensemble_results cimport encode_results
from kernels.ensemble_tensors cimport fill_step
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.queueing cimport admit_request
from kernels.request cimport (
    QUEUED, RUNNING, SETTLED, give_back_request, request, request_pool, take_request, was_withdrawn,
)
from kernels.sequence_gate cimport (
    GATE_NO_MEMORY, GATE_PASSED, GATE_WAITS, enter_gate, gate_place, leave_gate, sequence_gate, take_first,
)
from kernels.sequence_id cimport read_turn
from kernels.signature cimport bind_request
from kernels.statistics cimport count_batch, count_failure
from kernels.status cimport CANCELLED, EXHAUSTED, EXPIRED, OK
from kernels.step_turns cimport admit_turn
from kernels.sync cimport counter_add, int_load, int_store, monotonic_ns, pthread_mutex_lock, pthread_mutex_unlock
from kernels.trace cimport trace_batch
from kernels.wire cimport bytes_view

cdef void start_ensemble(request_pool* requests, ensemble_plan* plan, request* client) noexcept nogil:
    """Run a request that is bound to an ensemble, or settle it as refused. Whoever calls keeps the plan meanwhile."""
    cdef batcher* home = plan.home
    cdef int64_t bytes_waiting = counter_add(home.pending_bytes, client.held_bytes)
    cdef ensemble_run* opened = NULL
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
    opened.ready = choose_steps(opened)
    # From here on a cancellation finds the run, which is complete.
    int_store(&client.state, RUNNING)
    if opened.unbegun == 0 or not wait_turn(opened):
        begin_steps(opened, opened.ready)
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
        if run.plan.keeps_sequences:
            give_up_turn(run)
        take_hand(run)


# ---- the turn of a request among those of its sequence


cdef bint wait_turn(ensemble_run* run) noexcept nogil:
    """Have a run that is to begin wait for those that came before it in its sequence. True when that is all for now.

    The calling thread keeps its hand; a run that waits has another one.
    """
    cdef batcher* home = run.plan.home
    cdef request* client = run.client
    cdef sequence_gate* gate = run.plan.graph.gate
    cdef bytes_view name = bytes_view(<const uint8_t*> home.served.model, home.served.model_size)
    cdef bint is_stopped
    cdef int outcome
    if read_turn(NULL, gate.seed, client) != 0:
        # The step that keeps sequences says what is wrong with the parameters.
        client.error.code = OK
        return False
    pthread_mutex_lock(&home.lock)
    run.hands += 1
    pthread_mutex_unlock(&home.lock)
    outcome = enter_gate(gate, name, home.version, &client.turn, &run.turn)
    pthread_mutex_lock(&home.lock)
    if outcome != GATE_WAITS:
        run.hands -= 1
    if outcome == GATE_NO_MEMORY and not run.is_stopped:
        run.is_stopped = True
        run.error.code = EXHAUSTED
        snprintf(run.error.text, FAILURE_TEXT_BYTES, "no memory for another sequence")
    is_stopped = run.is_stopped
    pthread_mutex_unlock(&home.lock)
    if outcome == GATE_NO_MEMORY:
        drop_ready(run)
    elif outcome == GATE_WAITS and is_stopped:
        give_up_turn(run)
    return outcome != GATE_PASSED


cdef void give_up_turn(ensemble_run* run) noexcept nogil:
    """End a run that has been cancelled, if it still waits for its turn; the calling thread has a hand in it."""
    if leave_gate(run.plan.graph.gate, &run.turn):
        drop_ready(run)
        take_hand(run)


cdef void drop_ready(ensemble_run* run) noexcept nogil:
    """Take away the hands of the steps that would have begun a run; the calling thread has another one in it."""
    cdef const run_step* step = run.ready
    pthread_mutex_lock(&run.plan.home.lock)
    while step != NULL:
        run.hands -= 1
        step = step.ready
    pthread_mutex_unlock(&run.plan.home.lock)


cdef void hand_on(sequence_gate* gate, gate_place* place) noexcept nogil:
    """Let the next request of a sequence go, once the one before it has begun its steps that keep sequences."""
    cdef ensemble_run* next_run = <ensemble_run*> take_first(gate, place, True)
    while next_run != NULL:
        next_run.spent.taken_ns = monotonic_ns()
        begin_steps(next_run, next_run.ready)
        take_hand(next_run)
        next_run = <ensemble_run*> take_first(gate, place, False)


# ---- the beginning


cdef void begin_steps(ensemble_run* run, run_step* ready) noexcept nogil:
    """Begin steps whose inputs are there, and those that come to it meanwhile.

    Each has a hand in the run, and so has the calling thread.
    """
    cdef run_step* step
    cdef run_step* last
    cdef run_step* following
    while ready != NULL:
        step = ready
        ready = step.ready
        following = begin_step(run, step)
        if following == NULL:
            continue
        last = following
        while last.ready != NULL:
            last = last.ready
        last.ready = ready
        ready = following


cdef run_step* begin_step(ensemble_run* run, run_step* step) noexcept nogil:
    """Admit a step's request to its model; return the steps that may begin then, if it has ended already.

    A chain of steps that are answered from the response cache is so no chain of calls.
    """
    cdef plan_step* planned = &run.plan.steps[step.index]
    cdef batcher* home = run.plan.home
    cdef run_step* ready = NULL
    cdef gate_place* place = NULL
    cdef bint is_stopped = False, has_ended
    submit_step(run, planned, step)
    pthread_mutex_lock(&home.lock)
    step.is_beginning = False
    has_ended = step.has_ended
    if has_ended:
        ready = end_step(run, step, &is_stopped)
        run.hands -= 1
    else:
        step.is_admitted = True
        is_stopped = run.is_stopped
    if planned.keeps_sequences:
        run.unbegun -= 1
        if run.unbegun == 0:
            place = run.turn.place
            run.turn.place = NULL
    pthread_mutex_unlock(&home.lock)
    if has_ended:
        follow_step(run, step, is_stopped)
    elif is_stopped:
        cancel_step(step)
    if place != NULL:
        hand_on(run.plan.graph.gate, place)
    return ready


cdef void submit_step(ensemble_run* run, plan_step* planned, run_step* step) noexcept nogil:
    """Have a step's request answered, queued or refused. Whatever becomes of it, settle_step hears of it."""
    cdef request* asked = take_request(run.requests)
    cdef batcher* target = planned.target
    step.asked = asked
    if asked == NULL:
        step.has_ended = True
        return
    asked.arrival_ns = step.arrival_ns if step.arrival_ns != 0 else run.spent.taken_ns
    asked.context = step
    asked.done = settle_step
    if fill_step(run, step, asked) != 0:
        count_refusal(target, asked)
        settle_request(asked)
    elif target.sequences != NULL:
        step.elder = admit_turn(run.plan.graph.gate, planned, asked)
    elif bind_request(&target.accepted, asked) != 0:
        count_refusal(target, asked)
        settle_request(asked)
    elif target.cache != NULL and find_answer(
            target, planned.inner.serial if planned.inner != NULL else target.serial, asked):
        settle_request(asked)
    elif planned.inner != NULL:
        start_ensemble(run.requests, planned.inner, asked)
    else:
        admit_request(target, asked)


# ---- the end of a step


cdef void settle_step(request* asked) noexcept nogil:
    """Called by whoever settles a step's request, from any thread."""
    cdef run_step* step = <run_step*> asked.context
    cdef ensemble_run* run = step.run
    cdef batcher* home = run.plan.home
    cdef run_step* ready = NULL
    cdef bint stops = False, is_beginning
    pthread_mutex_lock(&home.lock)
    is_beginning = step.is_beginning
    step.has_ended = True
    if not is_beginning:
        ready = end_step(run, step, &stops)
    pthread_mutex_unlock(&home.lock)
    if is_beginning:
        return
    follow_step(run, step, stops)
    begin_steps(run, ready)
    take_hand(run)


cdef void follow_step(ensemble_run* run, run_step* step, bint stops) noexcept nogil:
    """Let go of what a step has read that has ended, or cancel all others."""
    if stops:
        cancel_steps(run)
    elif step.asked != NULL and step.asked.error.code == OK:
        release_sources(run, step)


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
    cdef sequence_gate* gate = run.plan.graph.gate
    cdef gate_place* place = run.turn.place
    if run.error.code == OK and not run.is_stopped:
        encode_results(run)
    run.spent.ended_ns = monotonic_ns()
    if home.cache != NULL and client.is_missed and run.error.code == OK and not run.is_stopped:
        client.next = NULL
        keep_answers(home, client)
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
        client.retry_ns = run.retry_ns if run.error.code == EXHAUSTED else 0
    end_steps(run)
    end_run(run)
    settle_request(client)
    if place != NULL:
        hand_on(gate, place)
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
    if client.kept != NULL:
        client.kept.queued_ns += run.queued_ns
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
        if step.elder != NULL:
            release_batcher(step.elder)
