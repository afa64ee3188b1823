"""Keeps count of the inputs that each step of a run waits for, and of the readers that each step's outputs wait for."""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf

from kernels.ensemble_plan cimport ensemble_plan, plan_step
from kernels.ensemble_run cimport ensemble_run, run_step
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.request cimport drop_reply, request
from kernels.status cimport EXHAUSTED, OK
from kernels.sync cimport counter_add, int_add

cdef enum:
    SHOWN_ERROR_BYTES = 384   # of a step's error, behind the names of ensemble and step

cdef const char* NO_REQUEST = b"no memory for a request"


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
        run.unbegun += plan.steps[index].keeps_sequences
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


cdef run_step* end_step(ensemble_run* run, run_step* step, bint* stops) noexcept nogil:
    """Count a step that has ended; return the steps that have waited for it alone. Under the lock.

    `stops` tells whether its failure is that of the run: all other steps are to be cancelled.
    """
    cdef request* asked = step.asked
    stops[0] = False
    if asked != NULL and asked.error.code == OK:
        run.spent.gather_ns += step.kept.gather_ns
        run.spent.run_ns += step.kept.run_ns
        run.spent.encode_ns += step.kept.encode_ns
        run.queued_ns += step.kept.queued_ns
        # Before any reader can have ended.
        step.held_bytes = <int64_t> asked.reply_size
        counter_add(run.plan.home.pending_bytes, step.held_bytes)
        return take_ready(run, step)
    if not run.is_stopped:
        stops[0] = True
        run.is_stopped = True
        fail_run(run, step)
    return NULL


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
            reader.arrival_ns = settled.kept.ended_ns
            reader.ready = ready
            ready = reader
            run.hands += 1
    return ready


cdef void fail_run(ensemble_run* run, const run_step* step) noexcept nogil:
    cdef request* asked = step.asked
    cdef const char* text = NO_REQUEST
    run.error.code = EXHAUSTED
    if asked != NULL:
        text = asked.error.text
        run.error.code = asked.error.code
        run.retry_ns = asked.retry_ns
    snprintf(run.error.text, FAILURE_TEXT_BYTES, "in ensemble '%s', step '%s': %.*s", run.plan.home.served.model,
             run.plan.steps[step.index].target.served.model, SHOWN_ERROR_BYTES, text)


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
