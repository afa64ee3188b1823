"""Which loaded versions an ensemble's steps run on: made with each route table, the same for a request from end to end.

A plan is immutable. The table holds one reference and each request under way one more, and a plan holds the batchers that
it leads to: whoever began with a version ends with it, though another has taken its place.
"""

from libc.stdint cimport int32_t, int64_t

from kernels.batcher cimport batcher
from kernels.ensemble cimport ensemble_core
from kernels.interface cimport label_list
from kernels.session cimport tensor_spec

cdef enum tensor_fit:          # how a tensor's shape becomes that of who reads it
    FIT_AS_IS = 0
    FIT_WITH_BATCH = 1         # a batch of 1 is put in front: only the reader batches
    FIT_WITHOUT_BATCH = 2      # a batch of 1 is taken away: only the maker batches


cdef struct plan_tensor:
    int32_t step               # that makes it, -1 for an input of the ensemble
    int32_t place              # among those inputs, or among the step's outputs


cdef struct plan_link:         # a tensor on its way
    int32_t tensor
    int fit


cdef struct plan_step:
    batcher* target            # held
    int64_t version            # that the step names, -1 for the highest
    ensemble_plan* inner       # held; NULL unless the target is an ensemble itself
    const tensor_spec** inputs   # of the target, those that are fed
    plan_link* links             # what feeds them
    int32_t n_inputs
    const tensor_spec** outputs  # of the target, those that are tensors of the ensemble
    int32_t n_outputs
    int32_t* readers           # steps that read them, once for each input
    int32_t n_readers
    bint keeps_sequences       # it does, or a step of the ensemble that it is


cdef struct ensemble_plan:
    int references
    batcher* home              # the ensemble's own
    ensemble_core* graph       # alive as long as the home
    plan_step* steps           # graph.n_steps; each comes after those whose tensors it reads
    int32_t n_steps
    plan_tensor* tensors
    plan_link* outputs         # what each output of the ensemble is
    label_list* labels         # of each output: the ensemble's own, or else the maker's
    int64_t serial             # of the versions that it leads to, for the response cache; 0 before it is in place
    bint keeps_sequences       # some step does


cdef class PlanHandle:
    cdef ensemble_plan* plan   # NULL until it is complete
    cdef tuple serials         # of the ensemble's version and those of its steps, of all levels
    cdef frozenset keepers     # those among them that keep sequences, as (name, version)


cdef ensemble_plan* create_plan(batcher* home, ensemble_core* graph, int32_t n_tensors) noexcept nogil
cdef int open_step(plan_step* made, batcher* target, ensemble_plan* inner, int32_t n_inputs, int32_t n_outputs,
                   int32_t n_readers) noexcept nogil
cdef void hold_plan(ensemble_plan* held) noexcept nogil
cdef void drop_plan(ensemble_plan* held) noexcept nogil
