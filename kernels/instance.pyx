"""Gathers a batch into one buffer per input, runs the session and encodes each caller's rows from the outputs.

Each input tensor is copied once, from the message to the batch's buffer, and each output once, to its caller's reply. The
large tensors of a batch of one are not copied on the CPU: the session reads them in the message and writes its output
into the reply. Nor are those of a batch of one that a client has in the memory of the session's own GPU.
A batch is a list of bound requests linked by `next`; nothing here settles them. The three steps may each take place on
another thread, one after the other: prepare_batch, run_prepared, finish_batch.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset, strstr

from kernels.answer cimport write_answer
from kernels.buffers cimport reserve, trim_buffers
from kernels.codec cimport bytes_view, output_view
from kernels.datatype cimport DT_BOOL, DT_BYTES, datatype_size
from kernels.deliveries cimport deliver_outputs
from kernels.elements cimport gather_tensor
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.gpu_place cimport find_input_place, find_output_place
from kernels.interface cimport convert_in_place, fits
from kernels.padding cimport measure_lengths
from kernels.recording cimport find_recording, run_recording
from kernels.request cimport bound_tensor, request
from kernels.response cimport response_parameter
from kernels.sequence_states cimport keep_states
from kernels.session cimport (
    MAX_RANK, bind_on_gpu, bind_tensor, create_strings, describe_value, fill_strings, read_numbers, read_strings,
    release_values, run_session, session_core, tensor_data, tensor_spec,
)
from kernels.status cimport EXHAUSTED, INTERNAL, OK
from kernels.sync cimport monotonic_ns
from kernels.timing cimport TIMING_PARAMETERS, describe_timing
from kernels.uneven_inputs cimport gather_padded, make_inputs, shape_input
from kernels.uneven_outputs cimport check_outputs, is_scattered, pass_scattered, reserve_crops, slice_uneven

cdef enum:
    IN_PLACE_BYTES = 4096           # smaller tensors are copied, which costs as little and keeps to one way

# In every text of ONNX Runtime about an output that does not fit the buffer it was given, and in no other.
cdef const char* OUTPUT_OF_OTHER_SHAPE = b"OrtValue"
# What may be wrong with an output that does not have a row for each of the batch.
cdef const char* UNBATCHED = b"the model does not batch; set max_batch_size: 0 in its config.pbtxt"
cdef const char* UNSCATTERED = (b"one that has the elements of all requests end to end must be in batch_output of its "
                                b"config.pbtxt")


cdef int execute_batch(instance* used, request* batch, int64_t rows, int64_t now_ns, failure* error) noexcept nogil:
    """Run a batch and encode its replies. 0, or -1 with `error` set and no reply valid."""
    cdef int failed = prepare_batch(used, batch, rows, now_ns, error)
    if failed == 0:
        failed = run_prepared(used, error)
    return finish_batch(used, batch, rows, failed, error)


cdef int prepare_batch(instance* used, request* batch, int64_t rows, int64_t now_ns, failure* error) noexcept nogil:
    """Gather a batch and give its outputs a place. 0, or -1 with `error` set; finish_batch must follow either way."""
    cdef int failed
    begin_batch(used, rows, now_ns)
    failed = gather_batch(used, batch, rows, error)
    if failed == 0:
        failed = bind_outputs(used, batch, rows, error)
    used.gather_ns = end_phase(used)
    return failed


cdef void begin_batch(instance* used, int64_t rows, int64_t now_ns) noexcept nogil:
    """Begin the first phase of a batch, and choose how it is run."""
    used.rows = rows
    used.recorded = find_recording(used.core, rows) if used.core.recorded != NULL else NULL
    used.wait_ns = used.run_ns = 0
    used.phase_ns = now_ns


cdef int finish_batch(instance* used, request* batch, int64_t rows, int failed, failure* error) noexcept nogil:
    """Encode the replies of a batch unless it failed, and let go of its tensors. 0, or -1 with `error` set."""
    if failed == 0:
        failed = read_results(used, rows, error)
    if failed == 0 and used.uneven != NULL:
        failed = check_outputs(used, batch, error)
    if failed == 0 and not used.is_encoded:
        failed = encode_batch(used, batch, error)
    if failed == 0 and used.accepted.sequences != NULL:
        failed = keep_states(used.accepted, used.results, used.offsets, batch, error)
    release_tensors(used)
    trim_buffers(used)
    used.encode_ns = end_phase(used)
    used.ended_ns = used.phase_ns
    return failed


cdef int64_t end_phase(instance* used) noexcept nogil:
    """Return how long the phase took that ends now; the next begins."""
    cdef int64_t now_ns = monotonic_ns(), spent_ns = now_ns - used.phase_ns
    used.phase_ns = now_ns
    return spent_ns


cdef void release_tensors(instance* used) noexcept nogil:
    release_values(used.core, used.inputs, used.core.n_inputs)
    release_values(used.core, used.outputs, used.core.n_outputs)


# ---- gather


cdef int gather_batch(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil:
    """Make one OrtValue per model input from the rows of every request; a recording has its own."""
    cdef session_core* core = used.core
    cdef int64_t shape[MAX_RANK]
    cdef int32_t index
    if used.uneven != NULL:
        measure_lengths(used.accepted.uneven, batch, used.uneven.longest)
    for index in range(core.n_inputs):
        if batch.inputs[index].shape == NULL:
            continue  # an optional input that these requests leave out, or one that is made of the batch
        memcpy(shape, batch.inputs[index].shape, core.inputs[index].rank * sizeof(int64_t))
        if used.accepted.max_batch_size > 0:
            shape[0] = rows
        if used.uneven != NULL and shape_input(used, batch, index, shape):
            if gather_padded(used, batch, index, shape, error) != 0:
                return -1
        elif core.inputs[index].datatype == DT_BYTES:
            if gather_strings(used, batch, index, shape, error) != 0:
                return -1
        elif gather_numbers(used, batch, index, shape, error) != 0:
            return -1
    return make_inputs(used, batch, error) if used.uneven != NULL else 0


cdef int gather_numbers(instance* used, request* batch, int32_t index, const int64_t* shape,
                        failure* error) noexcept nogil:
    cdef session_core* core = used.core
    cdef request* member = batch
    cdef const tensor_spec* spec = &core.inputs[index]
    cdef size_t total = 0, added = 0
    cdef uint8_t* target
    cdef void* on_gpu = NULL
    if batch.next == NULL and batch.inputs[index].home != NULL and used.recorded == NULL:
        on_gpu = find_input_place(&core.place, spec, &batch.inputs[index])
    if on_gpu != NULL:
        return bind_on_gpu(core, spec, on_gpu, batch.inputs[index].size, shape, &used.inputs[index], error)
    if (batch.next == NULL and core.place.reads_messages
            and can_bind_in_place(&batch.inputs[index], spec.datatype)):
        return bind_tensor(core, spec, <void*> batch.inputs[index].data, batch.inputs[index].size, shape,
                           &used.inputs[index], error)
    while member != NULL:
        total += member.inputs[index].size
        member = member.next
    if used.recorded != NULL:
        added = total // <size_t> used.rows * <size_t> (used.recorded.rows - used.rows)
    if reserve(&core.place, &used.input_buffers[index], &used.input_capacities[index], total + added, error) != 0:
        return -1
    target = used.input_buffers[index]
    member = batch
    while member != NULL:
        if gather_tensor(spec, &member.inputs[index], target, error) != 0:
            return -1
        target += member.inputs[index].size
        member = member.next
    if used.recorded != NULL:
        memset(target, 0, added)
        return 0
    return bind_tensor(core, spec, used.input_buffers[index], total, shape, &used.inputs[index], error)


cdef bint can_bind_in_place(const bound_tensor* content, int datatype) noexcept nogil:
    """Whether a tensor can be run on where the message or the scratch holds it, which Run only reads.

    Kernels may rely on aligned elements, and on a BOOL being 0 or 1.
    """
    return (content.data != NULL and content.size >= IN_PLACE_BYTES and datatype != DT_BOOL
            and <size_t> content.data % <size_t> datatype_size(datatype) == 0)


cdef int gather_strings(instance* used, request* batch, int32_t index, const int64_t* shape,
                        failure* error) noexcept nogil:
    cdef session_core* core = used.core
    cdef request* member = batch
    cdef int64_t filled, element = 0
    if create_strings(core, shape, core.inputs[index].rank, &used.inputs[index], error) != 0:
        return -1
    while member != NULL:
        filled = fill_strings(core, used.inputs[index], element, member.inputs[index].data, member.inputs[index].size,
                              error)
        if filled < 0:
            return -1
        element += filled
        member = member.next
    return 0


# ---- run


cdef int run_prepared(instance* used, failure* error) noexcept nogil:
    """Run the session on what was prepared. 0, or -1 with `error` set."""
    cdef int failed
    if used.recorded != NULL:
        failed = run_recording(used.core, used.recorded, used.input_buffers, used.output_buffers, used.rows, error)
        used.run_ns = end_phase(used)
        return failed
    failed = run_session(used.core, used.inputs, used.outputs, error)
    if failed != 0 and not used.own_outputs and strstr(error.text, OUTPUT_OF_OTHER_SHAPE) != NULL:
        # The model's symbolic dimension promised more than it keeps: let ONNX Runtime size the outputs from now on.
        used.own_outputs = True
        used.is_encoded = False
        error.code = OK
        release_values(used.core, used.outputs, used.core.n_outputs)
        failed = run_session(used.core, used.inputs, used.outputs, error)
    used.run_ns = end_phase(used)
    return failed


cdef int read_results(instance* used, int64_t rows, failure* error) noexcept nogil:
    """Describe the outputs of a run in `results`."""
    cdef int32_t index
    for index in range(used.core.n_outputs):
        if read_result(used, index, rows, error) != 0:
            return -1
    return 0


cdef int bind_outputs(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil:
    """Give Run a place for each output of numbers whose size is known: in a reply, or in a buffer.

    `batch` is NULL when nobody takes them.
    """
    cdef session_core* core = used.core
    cdef const tensor_spec* spec
    cdef tensor_data* result
    cdef void* on_gpu
    cdef int32_t index
    used.is_encoded = False
    if used.own_outputs and used.recorded == NULL:
        return 0
    for index in range(core.n_outputs):
        spec = &core.outputs[index]
        if spec.datatype == DT_BYTES:
            continue
        result = &used.results[index]
        size_result(spec, result, rows if used.accepted.max_batch_size > 0 else 0)
        on_gpu = NULL
        if (batch != NULL and batch.has_deliveries and batch.next == NULL and used.recorded == NULL
                and used.accepted.sequences == NULL):  # whose states are read from the outputs
            on_gpu = find_output_place(&core.place, batch, index, core.n_inputs, result.size)
        if on_gpu != NULL:
            result.data = <const uint8_t*> on_gpu
            if bind_on_gpu(core, spec, on_gpu, result.size, result.shape, &used.outputs[index], error) != 0:
                return -1
            continue
        if batch != NULL and can_encode_in_place(core, batch, result.size):
            if encode_reply(used, batch, 0, error) != 0:
                return -1
            result.data = batch.reply + (batch.reply_size - result.size)
            used.is_encoded = True
        else:
            if reserve(&core.place, &used.output_buffers[index], &used.output_capacities[index], result.size, error) != 0:
                return -1
            result.data = used.output_buffers[index]
        if used.recorded == NULL and bind_tensor(
                core, spec, <void*> result.data, result.size, result.shape, &used.outputs[index], error) != 0:
            return -1
    return 0


cdef bint can_encode_in_place(const session_core* core, const request* batch, size_t size) noexcept nogil:
    """Whether a batch's only output can be written into its only reply, which is then complete before the run."""
    return (batch.next == NULL and core.place.reads_messages and core.n_outputs == batch.n_outputs == 1
            and size >= IN_PLACE_BYTES and not batch.wants_timing and not batch.has_deliveries)


cdef void size_result(const tensor_spec* spec, tensor_data* result, int64_t rows) noexcept nogil:
    """Describe an output before it is there; `rows` replaces its first dimension unless it is 0."""
    result.rank = spec.rank
    memcpy(result.shape, spec.dims, spec.rank * sizeof(int64_t))
    if rows > 0:
        result.shape[0] = rows
    result.elements = spec.inner_elements * (result.shape[0] if spec.rank > 0 else 1)
    result.size = <size_t> result.elements * datatype_size(spec.datatype)
    result.data = NULL


cdef int read_result(instance* used, int32_t index, int64_t rows, failure* error) noexcept nogil:
    cdef session_core* core = used.core
    cdef const tensor_spec* spec = &core.outputs[index]
    cdef tensor_data* result = &used.results[index]
    if used.recorded != NULL or (not used.own_outputs and spec.datatype != DT_BYTES):
        return 0
    if describe_value(core, used.outputs[index], result, error) != 0:
        return -1
    if used.accepted.max_batch_size > 0 and not is_scattered(used, index) and (
            result.rank == 0 or result.shape[0] != rows):
        error.code = INTERNAL
        snprintf(error.text, FAILURE_TEXT_BYTES,
                 "output '%s' has a first dimension of %ld for a batch of %ld rows: %s", spec.name,
                 <long> (result.shape[0] if result.rank > 0 else 0), <long> rows,
                 UNSCATTERED if used.uneven != NULL and used.accepted.uneven.has_ragged else UNBATCHED)
        return -1
    if used.accepted.made != NULL and not fits(&used.accepted.made[index], result.shape, result.rank):
        error.code = INTERNAL
        snprintf(error.text, FAILURE_TEXT_BYTES, "output '%s' has another shape than its reshape in config.pbtxt says",
                 spec.name)
        return -1
    if spec.datatype != DT_BYTES:
        return read_numbers(core, used.outputs[index], datatype_size(spec.datatype), result, error)
    if read_strings(core, used.outputs[index], result.elements, &used.output_buffers[index],
                    &used.output_capacities[index], &used.offsets[index], &used.offsets_capacities[index], error) != 0:
        return -1
    result.data = used.output_buffers[index]
    result.size = used.offsets[index][result.elements]
    return 0


# ---- encode


cdef int encode_batch(instance* used, request* batch, failure* error) noexcept nogil:
    """Write every request's reply from its rows of the outputs."""
    cdef request* member = batch
    cdef int64_t first = 0
    while member != NULL:
        if encode_reply(used, member, first, error) != 0:
            return -1
        if used.uneven != NULL:
            pass_scattered(used, member)
        first += member.rows
        member = member.next
    return 0


cdef int encode_reply(instance* used, request* member, int64_t first, failure* error) noexcept nogil:
    """Write a reply; of an output that has no data yet only what comes before it.

    Without a reply where an output cannot be delivered: the request then has an error of its own.
    """
    cdef response_parameter[TIMING_PARAMETERS] timing
    cdef int32_t index, n_timing = 0
    if member.wants_timing:
        n_timing = describe_timing(
            used.taken_ns + used.wait_ns - member.arrival_ns, used.gather_ns, used.run_ns, used.rows, timing)
    if used.uneven != NULL and reserve_crops(used, member, first, error) != 0:
        return -1
    for index in range(member.n_outputs):
        slice_output(used, member, first, index)
    if member.has_deliveries:
        member.error.code = OK  # that of a run with others may stand there
        if deliver_outputs(used.accepted, member, used.views) != 0:
            return 0
    return write_answer(member, used.served, used.views, timing, n_timing, error)


cdef void slice_output(instance* used, const request* member, int64_t first, int32_t place) noexcept nogil:
    """Describe a request's rows of an output, from row `first` on, as the reply's output `place`."""
    cdef int32_t output = member.outputs[place]
    cdef int64_t rows = member.rows
    cdef const tensor_spec* spec = &used.accepted.core.outputs[output]
    cdef const tensor_data* result = &used.results[output]
    cdef output_view* view = &used.views[place]
    cdef int64_t* shape = used.shapes + place * MAX_RANK
    cdef int64_t inner
    cdef size_t start, end
    view.name = bytes_view(<const uint8_t*> spec.name, spec.name_size)
    view.datatype = spec.datatype
    view.rank = result.rank
    view.shape = shape
    view.region.data = NULL
    if used.uneven != NULL and slice_uneven(used, member, first, place):
        return
    memcpy(shape, result.shape, result.rank * sizeof(int64_t))
    if used.accepted.max_batch_size == 0:
        view.content = bytes_view(result.data, result.size)
    else:
        inner = result.elements // shape[0]
        shape[0] = rows
        if spec.datatype == DT_BYTES:
            start = used.offsets[output][first * inner]
            end = used.offsets[output][(first + rows) * inner]
        else:
            start = <size_t> (first * inner) * datatype_size(spec.datatype)
            end = start + <size_t> (rows * inner) * datatype_size(spec.datatype)
        view.content = bytes_view(result.data + start, end - start)
    if used.accepted.made != NULL:
        view.rank = convert_in_place(&used.accepted.made[output], &used.accepted.outputs[output], shape)
