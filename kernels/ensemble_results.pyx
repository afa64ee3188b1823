"""Checks what the steps have made against what the ensemble promises, and answers its caller with it."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from kernels.answer cimport write_answer
from kernels.codec cimport bytes_view, output_view
from kernels.deliveries cimport deliver_outputs
from kernels.ensemble_plan cimport FIT_AS_IS, FIT_WITH_BATCH, plan_link, plan_tensor
from kernels.ensemble_run cimport ensemble_run
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.interface cimport fits
from kernels.kept_outputs cimport kept_tensor
from kernels.request cimport request
from kernels.response cimport response_parameter
from kernels.session cimport MAX_RANK, tensor_spec
from kernels.signature cimport signature
from kernels.status cimport INTERNAL
from kernels.timing cimport TIMING_PARAMETERS, describe_timing


cdef int encode_results(ensemble_run* run) noexcept nogil:
    """Write the reply of a run whose steps have all succeeded. 0, or -1 with the run's error set."""
    cdef request* client = run.client
    cdef signature accepted = run.plan.home.accepted
    cdef response_parameter[TIMING_PARAMETERS] timing
    cdef int32_t index, n_timing = 0
    for index in range(client.n_outputs):
        if describe_result(run, index) != 0:
            return -1
    if client.has_deliveries:
        accepted.labels = run.plan.labels
        if deliver_outputs(&accepted, client, run.results) != 0:
            run.error = client.error
            return -1
    if client.wants_timing:
        n_timing = describe_timing(run.spent.taken_ns - client.arrival_ns + run.queued_ns, run.spent.gather_ns,
                                   run.spent.run_ns, client.rows, timing)
    return write_answer(client, &run.plan.home.served, run.results, timing, n_timing, &run.error)


cdef int describe_result(ensemble_run* run, int32_t index) noexcept nogil:
    """Describe the caller's output `index`, once its shape has been found to be what the ensemble promises."""
    cdef int32_t output = run.client.outputs[index]
    cdef const plan_link* link = &run.plan.outputs[output]
    cdef const plan_tensor* source = &run.plan.tensors[link.tensor]
    cdef const kept_tensor* kept = &run.steps[source.step].kept.tensors[source.place]
    cdef const signature* accepted = &run.plan.home.accepted
    cdef const tensor_spec* spec = &accepted.core.outputs[output]
    cdef output_view* result = &run.results[index]
    cdef int64_t* shape = run.result_shapes + index * MAX_RANK
    cdef bint is_right = copy_shape(kept, link.fit, shape, &result.rank)
    result.name = bytes_view(<const uint8_t*> spec.name, spec.name_size)
    result.datatype = kept.datatype
    result.shape = shape
    result.content = kept.content
    result.region = bytes_view(NULL, 0)
    if not is_right or not fits(spec, shape, result.rank):
        return refuse_result(run, spec, "has another shape than the ensemble's config.pbtxt says")
    if accepted.max_batch_size > 0 and shape[0] != run.client.rows:
        return refuse_result(run, spec, "has another number of rows than the request")
    return 0


cdef bint copy_shape(const kept_tensor* kept, int fit, int64_t* shape, int32_t* rank) noexcept nogil:
    """Write a tensor's shape as the ensemble has it; False when it has a batch of several and must have none."""
    if fit == FIT_AS_IS:
        memcpy(shape, kept.shape, kept.rank * sizeof(int64_t))
        rank[0] = kept.rank
        return True
    if fit == FIT_WITH_BATCH:
        rank[0] = min(kept.rank + 1, <int32_t> MAX_RANK)
        shape[0] = 1
        memcpy(shape + 1, kept.shape, (rank[0] - 1) * sizeof(int64_t))
        return True
    rank[0] = kept.rank - 1
    memcpy(shape, kept.shape + 1, rank[0] * sizeof(int64_t))
    return kept.shape[0] == 1


cdef int refuse_result(ensemble_run* run, const tensor_spec* spec, const char* complaint) noexcept nogil:
    run.error.code = INTERNAL
    snprintf(run.error.text, FAILURE_TEXT_BYTES, "ensemble '%s': output '%s' %s", run.plan.home.served.model, spec.name,
             complaint)
    return -1
