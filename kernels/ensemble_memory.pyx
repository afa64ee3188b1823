"""Takes runs from those that an ensemble has kept, and gives them back to it."""

from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from kernels.batch_start cimport tell_if_idle
from kernels.batcher cimport batcher
from kernels.codec cimport output_view
from kernels.ensemble cimport ensemble_core
from kernels.ensemble_plan cimport drop_plan, ensemble_plan, hold_plan
from kernels.ensemble_run cimport ensemble_run, run_step
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.kept_outputs cimport kept_tensor
from kernels.request cimport request
from kernels.session cimport MAX_RANK
from kernels.status cimport OK
from kernels.sync cimport monotonic_ns, pthread_mutex_lock, pthread_mutex_unlock

cdef enum:
    KEPT_RUNS = 64           # of an ensemble, while nobody uses them


cdef ensemble_run* open_run(ensemble_plan* plan, request* client) noexcept nogil:
    """Return a run for a request, with one hand and no step chosen; NULL with the error's text when there is none."""
    cdef batcher* home = plan.home
    cdef ensemble_run* taken
    cdef bint is_full
    pthread_mutex_lock(&home.lock)
    is_full = home.running >= home.max_queued
    taken = <ensemble_run*> plan.graph.idle_runs
    if not is_full:
        home.running += 1
        home.last_used_ns = max(home.last_used_ns, client.arrival_ns)
        if taken != NULL:
            plan.graph.idle_runs = taken.next
            plan.graph.n_idle -= 1
    pthread_mutex_unlock(&home.lock)
    if is_full:
        snprintf(client.error.text, FAILURE_TEXT_BYTES, "ensemble '%s' version %s is full: %ld requests are in it",
                 home.served.model, home.served.version, <long> home.max_queued)
        return NULL
    if taken == NULL:
        taken = create_run(plan.graph, home.accepted.core.n_outputs)
    if taken == NULL:
        snprintf(client.error.text, FAILURE_TEXT_BYTES, "no memory for a run of ensemble '%s'", home.served.model)
        leave_home(home)
        return NULL
    prepare_run(taken, plan, client)
    return taken


cdef void prepare_run(ensemble_run* taken, ensemble_plan* plan, request* client) noexcept nogil:
    cdef int32_t index
    cdef run_step* step
    cdef kept_tensor* tensors = taken.tensors
    hold_plan(plan)
    taken.plan = plan
    taken.client = client
    taken.hands = 1
    taken.is_stopped = False
    taken.error.code = OK
    taken.retry_ns = taken.queued_ns = 0
    taken.unbegun = 0
    taken.turn.place = NULL
    taken.turn.run = taken
    taken.turn.waits = False
    memset(&taken.spent, 0, sizeof(taken.spent))
    taken.spent.taken_ns = monotonic_ns()
    for index in range(plan.n_steps):
        step = &taken.steps[index]
        step.run = taken
        step.index = index
        step.asked = NULL
        step.kept.tensors = tensors
        tensors += plan.steps[index].n_outputs
        step.missing = step.readers = 0
        step.held_bytes = 0
        step.arrival_ns = 0
        step.elder = NULL
        step.is_needed = step.is_admitted = step.has_ended = False
        step.is_beginning = True
    client.ensemble_run = taken


cdef void end_run(ensemble_run* over) noexcept nogil:
    """Keep a run for the next request. Its batcher is still told to be running."""
    cdef ensemble_plan* plan = over.plan
    cdef ensemble_core* graph = plan.graph
    cdef batcher* home = plan.home
    cdef bint is_kept
    pthread_mutex_lock(&home.lock)
    is_kept = graph.n_idle < KEPT_RUNS
    if is_kept:
        over.next = <ensemble_run*> graph.idle_runs
        graph.idle_runs = over
        graph.n_idle += 1
        graph.free_run = free_run
    pthread_mutex_unlock(&home.lock)
    if not is_kept:
        free_run(over)
    drop_plan(plan)


cdef void leave_home(batcher* home) noexcept nogil:
    pthread_mutex_lock(&home.lock)
    home.running -= 1
    tell_if_idle(home)
    pthread_mutex_unlock(&home.lock)


# ---- memory


cdef ensemble_run* create_run(ensemble_core* graph, int32_t n_results) noexcept nogil:
    """Allocate a run and its tables, or return NULL."""
    cdef ensemble_run* made = <ensemble_run*> calloc(1, sizeof(ensemble_run))
    if made == NULL:
        return NULL
    made.steps = <run_step*> calloc(graph.n_steps, sizeof(run_step))
    made.tensors = <kept_tensor*> calloc(graph.n_outputs, sizeof(kept_tensor))
    made.input_shapes = <int64_t*> calloc(graph.n_inputs + 1, MAX_RANK * sizeof(int64_t))
    made.results = <output_view*> calloc(n_results, sizeof(output_view))
    made.result_shapes = <int64_t*> calloc(n_results, MAX_RANK * sizeof(int64_t))
    if (made.steps == NULL or made.tensors == NULL or made.input_shapes == NULL or made.results == NULL
            or made.result_shapes == NULL):
        free_run(made)
        return NULL
    return made


cdef void free_run(void* unused) noexcept nogil:
    cdef ensemble_run* run = <ensemble_run*> unused
    free(run.steps)
    free(run.tensors)
    free(run.input_shapes)
    free(run.results)
    free(run.result_shapes)
    free(run)
