"""Keeps a session busy: while it runs one batch, workers gather the next and encode the one before.

A set of buffers belongs to one thread at a time and is handed on with its task: from the worker that gathered a batch
to the lane that runs it, and from there to the worker that encodes it.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free

from kernels.awaited_end cimport await_end, awaited_end, bring_end, open_end
from kernels.buffers cimport close_instance, open_instance
from kernels.executor cimport schedule, task
from kernels.instance cimport end_phase, finish_batch, prepare_batch, run_prepared
from kernels.lane cimport append_task, close_lane, open_lane
from kernels.session cimport recordings
from kernels.status cimport OK
from kernels.sync cimport int_add, monotonic_ns
from kernels.zeros cimport finish_zeros, prepare_zeros


cdef int open_pipeline(pipeline* made, pipeline_owner* owner, const signature* accepted, session_core* core,
                       const version_name* served, int32_t n_sets) noexcept nogil:
    """Make the sets and start the lane. 0, or -1 without memory or thread (close_pipeline frees)."""
    cdef int32_t index
    made.owner = owner
    made.sets = <buffer_set*> calloc(n_sets, sizeof(buffer_set))
    if made.sets == NULL:
        return -1
    made.n_sets = n_sets
    for index in range(n_sets):
        made.sets[index].home = made
        if open_instance(&made.sets[index].buffers, accepted, core, served) != 0:
            return -1
        made.sets[index].next = made.unused
        made.unused = &made.sets[index]
    return open_lane(&made.runner)


cdef void close_pipeline(pipeline* used) noexcept nogil:
    """End the lane and free the sets, of which none may be on its way. A pipeline of zeros is fine."""
    cdef int32_t index
    close_lane(&used.runner)
    for index in range(used.n_sets):
        close_instance(&used.sets[index].buffers)
    free(used.sets)


cdef void start_batch(buffer_set* used, request* batch, int64_t rows) noexcept nogil:
    """Gather a batch into an unused set and send it on its way. On a worker.

    Whoever took the set from the unused ones has counted it in `pending`.
    """
    used.batch = batch
    used.rows = rows
    used.rest = NULL
    gather_next(used)


# ---- the way of a batch


cdef void gather_next(buffer_set* used) noexcept nogil:
    """Gather the set's batch, or what comes after it when that fails, and hand it to the lane; free a set without any."""
    cdef pipeline* home = used.home
    while used.batch != NULL:
        used.error.code = OK
        used.failed = prepare_batch(&used.buffers, used.batch, used.rows, monotonic_ns(), &used.error)
        if used.failed == 0:
            used.task.run = run_gathered
            append_task(&home.runner, &used.task)
            return
        leave_session(home)
        settle_batch(used)
    home.owner.set_freed(home.owner, used)


cdef void run_gathered(task* ready) noexcept nogil:
    """Run a batch. On the lane, which has nothing else to do, and to which the set is lost as soon as it is scheduled."""
    cdef buffer_set* used = <buffer_set*> ready
    cdef pipeline* home = used.home
    used.buffers.wait_ns = end_phase(&used.buffers)
    used.failed = run_prepared(&used.buffers, &used.error)
    used.task.run = encode_run
    leave_session(home)
    schedule(home.owner.pool, &used.task)


cdef void leave_session(pipeline* home) noexcept nogil:
    int_add(&home.pending, -1)
    home.owner.session_freed(home.owner)


cdef void encode_run(task* ready) noexcept nogil:
    """Settle a batch that was run, and go on with what is left of a failed one. On a worker."""
    cdef buffer_set* used = <buffer_set*> ready
    used.buffers.wait_ns += end_phase(&used.buffers)
    settle_batch(used)
    gather_next(used)


cdef void settle_batch(buffer_set* used) noexcept nogil:
    """Encode and settle the batch; when one of several failed, keep them to be run alone: one must not fail the others."""
    cdef pipeline* home = used.home
    cdef request* batch = used.batch
    used.failed = finish_batch(&used.buffers, batch, used.rows, used.failed, &used.error)
    if used.failed != 0 and batch.next != NULL:
        used.rest = batch
    else:
        home.owner.settle(home.owner, &used.buffers, batch, used.rows, &used.error)
    used.batch = used.rest
    if used.rest != NULL:
        used.rest = used.batch.next
        used.batch.next = NULL
        used.rows = used.batch.rows
        int_add(&home.pending, 1)


# ---- before the first request


cdef struct waiting_run:
    task task                # first
    buffer_set* used
    awaited_end end


cdef int warm_up(pipeline* used, failure* error) noexcept nogil:
    """Run the largest batch once on each set, on zeros. 0, or -1 with `error` set.

    So buffers and the device's memory have the size that they will need, and what providers choose at the first run of a
    shape is chosen. No set may be on its way.
    """
    cdef int32_t index
    cdef int failed = 0
    for index in range(used.n_sets):
        if failed == 0:
            failed = run_and_wait(&used.sets[index], used.sets[index].buffers.accepted.max_batch_size, error)
    return failed


cdef int record_sizes(pipeline* used, failure* error) noexcept nogil:
    """Run a batch of each size that the session records, whose first run makes the recording. 0, or -1 as of warm_up."""
    cdef const recordings* recorded = used.sets[0].buffers.core.recorded
    cdef int32_t index
    cdef int failed = 0
    if recorded == NULL:
        return 0
    for index in range(recorded.count):
        if failed == 0:
            failed = run_and_wait(&used.sets[0], recorded.sizes[index].rows, error)
    return failed


cdef int run_and_wait(buffer_set* used, int64_t rows, failure* error) noexcept nogil:
    cdef waiting_run wait
    used.error.code = OK
    used.failed = prepare_zeros(&used.buffers, rows, &used.error)
    if used.failed == 0:
        open_end(&wait.end)
        wait.task.run = run_waiting
        wait.used = used
        append_task(&used.home.runner, &wait.task)
        await_end(&wait.end)
    finish_zeros(&used.buffers)
    error[0] = used.error
    return used.failed


cdef void run_waiting(task* ready) noexcept nogil:
    cdef waiting_run* wait = <waiting_run*> ready
    wait.used.failed = run_prepared(&wait.used.buffers, &wait.used.error)
    bring_end(&wait.end)
