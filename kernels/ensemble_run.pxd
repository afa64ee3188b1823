"""One request's way through an ensemble: its steps, each a request of its own, from the first to the reply."""

from libc.stdint cimport int32_t, int64_t

from kernels.batcher cimport batcher
from kernels.codec cimport output_view
from kernels.ensemble_plan cimport ensemble_plan
from kernels.failure cimport failure
from kernels.kept_outputs cimport kept_outputs, kept_tensor
from kernels.request cimport request, request_pool
from kernels.sequence_gate cimport gate_turn
from kernels.statistics cimport batch_times


cdef struct run_step:
    ensemble_run* run
    run_step* ready          # the next one that a thread is to begin
    int32_t index            # in the plan
    int64_t arrival_ns       # since when its inputs are there; 0 for since the run has begun
    request* asked           # its own request, given back when the run ends; NULL before it has begun
    kept_outputs kept        # where that one's outputs are
    int32_t missing          # inputs whose makers have not settled
    int readers              # inputs and results that still need its outputs
    int64_t held_bytes       # of them, counted as those of messages
    batcher* elder           # the replaced version that has its sequence, held; NULL for the planned one
    bint is_needed
    bint is_admitted         # can be cancelled
    bint is_beginning        # the thread that begins it goes on with it, should it end meanwhile
    bint has_ended           # it has


cdef struct ensemble_run:    # the fields up to the next comment are guarded by the lock of the ensemble's batcher
    ensemble_run* next       # first: the link of those that are over
    int32_t hands            # steps under way and threads at work in here; at 0 it is over
    bint is_stopped          # a step has failed or the caller has given up: no step is begun any more
    failure error            # of the first step that failed
    batch_times spent        # sums over the steps
    int64_t queued_ns        # for how long steps waited, in all
    int64_t retry_ns         # of the step that failed
    int32_t unbegun          # needed steps that keep sequences and have not been begun
    # Of one thread at a time, or unchanging.
    request_pool* requests
    ensemble_plan* plan      # held
    request* client          # whom all this is for
    run_step* ready          # what begins the run
    gate_turn turn           # among the requests of its sequence, where steps keep some
    run_step* steps
    kept_tensor* tensors     # behind the steps' `kept`
    int64_t* input_shapes    # MAX_RANK for each input of a step, where the tensor has another
    output_view* results     # the reply's outputs
    int64_t* result_shapes   # MAX_RANK for each


cdef void start_ensemble(request_pool* requests, ensemble_plan* plan, request* client) noexcept nogil
cdef void cancel_ensemble(request* unwanted) noexcept nogil
