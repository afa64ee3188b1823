"""Fills in the view of a step's request as decoding a message would have, without copying a tensor.

Whether the tensors fit the model is for the checks that every request goes through.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset, strlen

from kernels.codec cimport OWNER_REQUEST, bytes_view, request_view, reserve_tensors, tensor_view
from kernels.datatype cimport datatype_name
from kernels.ensemble_plan cimport FIT_AS_IS, FIT_WITH_BATCH, plan_step, plan_tensor
from kernels.ensemble_run cimport ensemble_run, run_step
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.kept_outputs cimport kept_tensor
from kernels.refusals cimport refuse, refuse_memory
from kernels.request cimport bound_tensor, request
from kernels.session cimport MAX_RANK, tensor_spec
from kernels.status cimport INVALID


cdef int fill_step(ensemble_run* run, run_step* step, request* asked) noexcept nogil:
    """Make a fresh request that of a step, as far as it does not depend on the model. 0, or -1 with its error set."""
    cdef const plan_step* planned = &run.plan.steps[step.index]
    cdef const request* client = run.client
    cdef int32_t index
    asked.deadline_ns = client.deadline_ns
    asked.priority, asked.timeout_ns = client.priority, client.timeout_ns
    asked.kept = &step.kept
    if reserve_tensors(&asked.view, planned.n_inputs, planned.n_outputs, client.view.n_parameters) != 0:
        return refuse_memory(asked)
    asked.view.model_name = bytes_view(<const uint8_t*> planned.target.served.model, planned.target.served.model_size)
    asked.view.id = client.view.id
    for index in range(planned.n_inputs):
        if fill_input(run, step, asked, index) != 0:
            return -1
    for index in range(planned.n_outputs):
        asked.view.outputs[index].name = view_name(planned.outputs[index])
    asked.view.n_outputs = planned.n_outputs
    copy_parameters(&client.view, &asked.view)
    return 0


cdef int fill_input(ensemble_run* run, const run_step* step, request* asked, int32_t index) noexcept nogil:
    """Add an input of the step, unless the caller has left out the tensor that feeds it."""
    cdef const plan_step* planned = &run.plan.steps[step.index]
    cdef const plan_tensor* source = &run.plan.tensors[planned.links[index].tensor]
    cdef const kept_tensor* kept
    cdef const bound_tensor* given
    cdef const tensor_spec* spec
    cdef request_view* view = &asked.view
    cdef tensor_view* made = &view.inputs[view.n_inputs]
    memset(made, 0, sizeof(tensor_view))
    if source.step < 0:
        given = &run.client.inputs[source.place]
        if given.shape == NULL:
            return 0
        spec = &run.plan.home.accepted.core.inputs[source.place]
        made.datatype, made.rank, made.shape = spec.datatype, spec.rank, given.shape
        view.raw[view.n_raw] = bytes_view(given.data, given.size)
    else:
        kept = &run.steps[source.step].kept.tensors[source.place]
        made.datatype, made.rank, made.shape = kept.datatype, kept.rank, <const int64_t*> kept.shape
        view.raw[view.n_raw] = kept.content
    made.name = view_name(planned.inputs[index])
    made.datatype_name.data = <const uint8_t*> datatype_name(made.datatype)
    made.datatype_name.size = strlen(datatype_name(made.datatype))
    view.n_inputs += 1
    view.n_raw += 1
    if planned.links[index].fit == FIT_AS_IS:
        return 0
    return fit_shape(asked, made, planned.links[index].fit, input_shape(run, step, index))


cdef int fit_shape(request* asked, tensor_view* made, int fit, int64_t* shape) noexcept nogil:
    """Give a tensor a batch of one, or take that away."""
    if fit == FIT_WITH_BATCH:
        if made.rank == MAX_RANK:
            snprintf(asked.error.text, FAILURE_TEXT_BYTES, "input '%.*s' has no room for a batch dimension",
                     <int> made.name.size, <const char*> made.name.data)
            return refuse(asked, INVALID)
        shape[0] = 1
        memcpy(shape + 1, made.shape, made.rank * sizeof(int64_t))
        made.rank += 1
        made.shape = shape
        return 0
    if made.shape[0] != 1:
        snprintf(asked.error.text, FAILURE_TEXT_BYTES, "input '%.*s' is a batch of %ld rows; expected 1: the model does "
                 "not batch", <int> made.name.size, <const char*> made.name.data, <long> made.shape[0])
        return refuse(asked, INVALID)
    made.rank -= 1
    made.shape += 1
    return 0


cdef int64_t* input_shape(ensemble_run* run, const run_step* step, int32_t index) noexcept nogil:
    """Where the shape of a step's input has room."""
    cdef int32_t earlier
    for earlier in range(step.index):
        index += run.plan.steps[earlier].n_inputs
    return run.input_shapes + index * MAX_RANK


cdef void copy_parameters(const request_view* given, request_view* made) noexcept nogil:
    """Let a step know the parameters of the request itself; those of tensors have had their effect."""
    cdef int32_t index
    for index in range(given.n_parameters):
        if given.parameters[index].owner == OWNER_REQUEST:
            made.parameters[made.n_parameters] = given.parameters[index]
            made.n_parameters += 1


cdef inline bytes_view view_name(const tensor_spec* spec) noexcept nogil:
    return bytes_view(<const uint8_t*> spec.name, spec.name_size)
