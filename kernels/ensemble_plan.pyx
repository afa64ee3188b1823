"""The memory of plans, and the references that keep them and what they lead to."""

from cython cimport final
from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free

from kernels.batcher cimport batcher, hold_batcher, release_batcher
from kernels.ensemble cimport ensemble_core
from kernels.interface cimport label_list
from kernels.session cimport tensor_spec
from kernels.sync cimport int_add


@final
cdef class PlanHandle:
    """One reference to a plan."""

    def __dealloc__(self):
        if self.plan != NULL:
            with nogil:
                drop_plan(self.plan)


cdef ensemble_plan* create_plan(batcher* home, ensemble_core* graph, int32_t n_tensors) noexcept nogil:
    """Make a plan with empty steps and one reference, or return NULL without memory."""
    cdef int32_t n_outputs = home.accepted.core.n_outputs
    cdef ensemble_plan* made = <ensemble_plan*> calloc(1, sizeof(ensemble_plan))
    if made == NULL:
        return NULL
    made.references = 1
    made.home = home
    made.graph = graph
    made.steps = <plan_step*> calloc(graph.n_steps, sizeof(plan_step))
    made.tensors = <plan_tensor*> calloc(n_tensors + 1, sizeof(plan_tensor))
    made.outputs = <plan_link*> calloc(n_outputs + 1, sizeof(plan_link))
    made.labels = <label_list*> calloc(n_outputs + 1, sizeof(label_list))
    if made.steps == NULL or made.tensors == NULL or made.outputs == NULL or made.labels == NULL:
        drop_plan(made)
        return NULL
    return made


cdef int open_step(plan_step* made, batcher* target, ensemble_plan* inner, int32_t n_inputs, int32_t n_outputs,
                   int32_t n_readers) noexcept nogil:
    """Give a step its tables, to be filled in, and hold what it leads to. 0, or -1 without memory (drop_plan frees)."""
    made.inputs = <const tensor_spec**> calloc(n_inputs + 1, sizeof(void*))
    made.links = <plan_link*> calloc(n_inputs + 1, sizeof(plan_link))
    made.outputs = <const tensor_spec**> calloc(n_outputs + 1, sizeof(void*))
    made.readers = <int32_t*> calloc(n_readers + 1, sizeof(int32_t))
    if made.inputs == NULL or made.links == NULL or made.outputs == NULL or made.readers == NULL:
        return -1
    made.n_inputs, made.n_outputs, made.n_readers = n_inputs, n_outputs, n_readers
    made.target, made.inner = target, inner
    hold_batcher(target)
    if inner != NULL:
        hold_plan(inner)
    return 0


cdef void hold_plan(ensemble_plan* held) noexcept nogil:
    int_add(&held.references, 1)


cdef void drop_plan(ensemble_plan* held) noexcept nogil:
    """Give up a reference; with the last one the plan goes, and releases the batchers that it leads to."""
    cdef int32_t index
    if int_add(&held.references, -1) > 0:
        return
    for index in range(held.n_steps):
        close_step(&held.steps[index])
    free(held.steps)
    free(held.tensors)
    free(held.outputs)
    free(held.labels)
    free(held)


cdef void close_step(plan_step* used) noexcept nogil:
    if used.target != NULL:
        release_batcher(used.target)
    if used.inner != NULL:
        drop_plan(used.inner)
    free(<void*> used.inputs)
    free(used.links)
    free(<void*> used.outputs)
    free(used.readers)
