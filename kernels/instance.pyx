"""Gathers a batch into one buffer per input, runs the session and encodes each caller's rows from the outputs.

Each input tensor is copied once, from the message to the batch's buffer, and each output once, to its caller's reply. The
large tensors of a batch of one are not copied: the session reads them in the message and writes its output into the
reply.
A batch is a list of bound requests linked by `next`; nothing here settles them.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strstr

from kernels.codec cimport bytes_view, encode_response, output_view, response_size, response_view
from kernels.datatype cimport DT_BOOL, DT_BYTES, datatype_size
from kernels.deliveries cimport deliver_outputs
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.interface cimport convert_in_place, fits
from kernels.request cimport bound_tensor, request, reserve_reply
from kernels.response cimport response_parameter
from kernels.sequence_states cimport keep_states
from kernels.session cimport (
    MAX_RANK, bind_tensor, create_strings, describe_value, fill_strings, read_numbers, read_strings, release_values,
    run_session, session_core, tensor_data, tensor_spec,
)
from kernels.status cimport EXHAUSTED, INTERNAL, OK
from kernels.sync cimport monotonic_ns
from kernels.timing cimport TIMING_PARAMETERS, describe_timing

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** place, size_t alignment, size_t size) noexcept

cdef enum:
    ALIGNMENT = 64                  # a cache line, and enough for every vector instruction
    IN_PLACE_BYTES = 4096           # smaller tensors are copied, which costs as little and keeps to one way
    KEPT_BYTES = 8 * 1024 * 1024    # a larger buffer whose size the client chose is freed after its run

# In every text of ONNX Runtime about an output that does not fit the buffer it was given, and in no other.
cdef const char* OUTPUT_OF_OTHER_SHAPE = b"OrtValue"


cdef int open_instance(instance* made, const signature* accepted, const version_name* served) noexcept nogil:
    """Allocate the tables; the buffers grow with the first batches. 0, or -1 without memory (close_instance frees)."""
    cdef size_t n_inputs = accepted.core.n_inputs + 1, n_outputs = accepted.core.n_outputs + 1
    made.accepted = accepted
    made.served = served
    made.own_outputs = not (accepted.core.batched_outputs if accepted.max_batch_size > 0 else accepted.core.fixed_outputs)
    made.inputs = <OrtValue**> calloc(n_inputs, sizeof(void*))
    made.outputs = <OrtValue**> calloc(n_outputs, sizeof(void*))
    made.input_buffers = <uint8_t**> calloc(n_inputs, sizeof(void*))
    made.input_capacities = <size_t*> calloc(n_inputs, sizeof(size_t))
    made.output_buffers = <uint8_t**> calloc(n_outputs, sizeof(void*))
    made.output_capacities = <size_t*> calloc(n_outputs, sizeof(size_t))
    made.offsets = <size_t**> calloc(n_outputs, sizeof(void*))
    made.offsets_capacities = <size_t*> calloc(n_outputs, sizeof(size_t))
    made.results = <tensor_data*> calloc(n_outputs, sizeof(tensor_data))
    made.views = <output_view*> calloc(n_outputs, sizeof(output_view))
    made.shapes = <int64_t*> calloc(n_outputs * MAX_RANK, sizeof(int64_t))
    if (made.inputs == NULL or made.outputs == NULL or made.input_buffers == NULL or made.input_capacities == NULL
            or made.output_buffers == NULL or made.output_capacities == NULL or made.offsets == NULL
            or made.offsets_capacities == NULL or made.results == NULL or made.views == NULL or made.shapes == NULL):
        return -1
    return 0


cdef void close_instance(instance* used) noexcept nogil:
    """Free everything open_instance and the runs allocated; an instance of zeros is fine."""
    if used.accepted != NULL:
        free_buffers(used.input_buffers, used.accepted.core.n_inputs)
        free_buffers(used.output_buffers, used.accepted.core.n_outputs)
        free_buffers(<uint8_t**> used.offsets, used.accepted.core.n_outputs)
    free(used.inputs)
    free(used.outputs)
    free(used.input_buffers)
    free(used.input_capacities)
    free(used.output_buffers)
    free(used.output_capacities)
    free(used.offsets)
    free(used.offsets_capacities)
    free(used.results)
    free(used.views)
    free(used.shapes)


cdef void free_buffers(uint8_t** buffers, int32_t count) noexcept nogil:
    cdef int32_t index
    if buffers == NULL:
        return
    for index in range(count):
        free(buffers[index])


cdef int execute_batch(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil:
    """Run a batch and encode its replies. 0, or -1 with `error` set and no reply valid."""
    cdef session_core* core = used.accepted.core
    cdef int64_t started = monotonic_ns(), gathered, ran
    cdef int failed = gather_batch(used, batch, rows, error)
    gathered = monotonic_ns()
    used.rows = rows
    used.gather_ns = gathered - started
    if failed == 0:
        failed = run_batch(used, batch, rows, error)
    ran = monotonic_ns()
    used.run_ns = ran - gathered
    if failed == 0 and not used.is_encoded:
        failed = encode_batch(used, batch, error)
    if failed == 0 and used.accepted.sequences != NULL:
        failed = keep_states(used.accepted, used.results, used.offsets, batch, error)
    release_values(core, used.inputs, core.n_inputs)
    release_values(core, used.outputs, core.n_outputs)
    trim_buffers(used)
    used.ended_ns = monotonic_ns()
    used.encode_ns = used.ended_ns - ran
    return failed


cdef int run_zeros(instance* used, failure* error) noexcept nogil:
    """Run the largest batch of a model whose inputs are numbers of fixed size, on zeros, for its time alone."""
    cdef session_core* core = used.accepted.core
    cdef int64_t started = monotonic_ns(), gathered
    cdef int64_t rows = used.accepted.max_batch_size
    cdef int64_t shape[MAX_RANK]
    cdef const tensor_spec* spec
    cdef size_t size
    cdef int32_t index
    cdef int failed = 0
    for index in range(core.n_inputs):
        spec = &core.inputs[index]
        memcpy(shape, spec.dims, spec.rank * sizeof(int64_t))
        if rows > 0:
            shape[0] = rows
        size = <size_t> (shape[0] * spec.inner_elements) * datatype_size(spec.datatype)
        if failed == 0:
            failed = reserve(&used.input_buffers[index], &used.input_capacities[index], size, error)
        if failed == 0:
            memset(used.input_buffers[index], 0, size)
            failed = bind_tensor(core, spec, used.input_buffers[index], size, shape, &used.inputs[index], error)
    gathered = monotonic_ns()
    if failed == 0:
        failed = run_batch(used, NULL, rows, error)
    used.gather_ns = gathered - started
    used.run_ns = monotonic_ns() - gathered
    release_values(core, used.inputs, core.n_inputs)
    release_values(core, used.outputs, core.n_outputs)
    return failed


cdef int reserve(uint8_t** buffer, size_t* capacity, size_t needed, failure* error) noexcept nogil:
    """Make a buffer at least `needed` bytes large; what it held is lost."""
    if needed <= capacity[0] and buffer[0] != NULL:
        return 0
    free(buffer[0])
    buffer[0] = NULL
    capacity[0] = 0
    if posix_memalign(<void**> buffer, ALIGNMENT, needed + ALIGNMENT) != 0:
        buffer[0] = NULL
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for a batch buffer of %zu bytes", needed)
        return -1
    capacity[0] = needed
    return 0


cdef void trim_buffers(instance* used) noexcept nogil:
    """Free what a large request left: an input of open size, and strings with their offsets."""
    cdef session_core* core = used.accepted.core
    cdef int32_t index
    for index in range(core.n_inputs):
        if used.accepted.max_batch_size == 0 or core.inputs[index].inner_elements < 0:
            trim(<void**> &used.input_buffers[index], &used.input_capacities[index])
    for index in range(core.n_outputs):
        if core.outputs[index].datatype == DT_BYTES:
            trim(<void**> &used.output_buffers[index], &used.output_capacities[index])
            trim(<void**> &used.offsets[index], &used.offsets_capacities[index])


cdef void trim(void** buffer, size_t* capacity) noexcept nogil:
    if capacity[0] > KEPT_BYTES:
        free(buffer[0])
        buffer[0] = NULL
        capacity[0] = 0


# ---- gather


cdef int gather_batch(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil:
    """Make one OrtValue per model input from the rows of every request."""
    cdef session_core* core = used.accepted.core
    cdef int64_t shape[MAX_RANK]
    cdef int32_t index
    for index in range(core.n_inputs):
        if batch.inputs[index].shape == NULL:
            continue  # an optional input that these requests leave out
        memcpy(shape, batch.inputs[index].shape, core.inputs[index].rank * sizeof(int64_t))
        if used.accepted.max_batch_size > 0:
            shape[0] = rows
        if core.inputs[index].datatype == DT_BYTES:
            if gather_strings(used, batch, index, shape, error) != 0:
                return -1
        elif gather_numbers(used, batch, index, shape, error) != 0:
            return -1
    return 0


cdef int gather_numbers(instance* used, request* batch, int32_t index, const int64_t* shape,
                        failure* error) noexcept nogil:
    cdef session_core* core = used.accepted.core
    cdef request* member = batch
    cdef size_t total = 0
    cdef uint8_t* target
    if batch.next == NULL and can_bind_in_place(&batch.inputs[index], core.inputs[index].datatype):
        return bind_tensor(core, &core.inputs[index], <void*> batch.inputs[index].data, batch.inputs[index].size, shape,
                           &used.inputs[index], error)
    while member != NULL:
        total += member.inputs[index].size
        member = member.next
    if reserve(&used.input_buffers[index], &used.input_capacities[index], total, error) != 0:
        return -1
    target = used.input_buffers[index]
    member = batch
    while member != NULL:
        if member.inputs[index].size > 0:
            copy_numbers(target, member.inputs[index].data, member.inputs[index].size, core.inputs[index].datatype)
        target += member.inputs[index].size
        member = member.next
    return bind_tensor(core, &core.inputs[index], used.input_buffers[index], total, shape, &used.inputs[index], error)


cdef bint can_bind_in_place(const bound_tensor* content, int datatype) noexcept nogil:
    """Whether a tensor can be run on where the message or the scratch holds it, which Run only reads.

    Kernels may rely on aligned elements, and on a BOOL being 0 or 1.
    """
    return (content.size >= IN_PLACE_BYTES and datatype != DT_BOOL
            and <size_t> content.data % <size_t> datatype_size(datatype) == 0)


cdef void copy_numbers(uint8_t* target, const uint8_t* source, size_t size, int datatype) noexcept nogil:
    """Copy elements; a BOOL of any value but 0 becomes 1, since kernels may take the byte for a C++ bool."""
    cdef size_t position
    if datatype != DT_BOOL:
        memcpy(target, source, size)
        return
    for position in range(size):
        target[position] = source[position] != 0


cdef int gather_strings(instance* used, request* batch, int32_t index, const int64_t* shape,
                        failure* error) noexcept nogil:
    cdef session_core* core = used.accepted.core
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


cdef int run_batch(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil:
    """Run the session and describe its outputs in `results`. `batch` is NULL when nobody takes them."""
    cdef session_core* core = used.accepted.core
    cdef int32_t index
    used.is_encoded = False
    if not used.own_outputs and bind_outputs(used, batch, rows, error) != 0:
        return -1
    if run_session(core, used.inputs, used.outputs, error) != 0:
        if used.own_outputs or strstr(error.text, OUTPUT_OF_OTHER_SHAPE) == NULL:
            return -1
        # The model's symbolic dimension promised more than it keeps: let ONNX Runtime size the outputs from now on.
        used.own_outputs = True
        used.is_encoded = False
        error.code = OK
        release_values(core, used.outputs, core.n_outputs)
        if run_session(core, used.inputs, used.outputs, error) != 0:
            return -1
    for index in range(core.n_outputs):
        if read_result(used, index, rows, error) != 0:
            return -1
    return 0


cdef int bind_outputs(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil:
    """Give Run a place for each output of numbers, whose size is known: in a reply, or in a buffer."""
    cdef session_core* core = used.accepted.core
    cdef const tensor_spec* spec
    cdef tensor_data* result
    cdef int32_t index
    for index in range(core.n_outputs):
        spec = &core.outputs[index]
        if spec.datatype == DT_BYTES:
            continue
        result = &used.results[index]
        size_result(spec, result, rows if used.accepted.max_batch_size > 0 else 0)
        if batch != NULL and can_encode_in_place(core, batch, result.size):
            if encode_reply(used, batch, 0, error) != 0:
                return -1
            result.data = batch.reply + (batch.reply_size - result.size)
            used.is_encoded = True
        else:
            if reserve(&used.output_buffers[index], &used.output_capacities[index], result.size, error) != 0:
                return -1
            result.data = used.output_buffers[index]
        if bind_tensor(core, spec, <void*> result.data, result.size, result.shape, &used.outputs[index], error) != 0:
            return -1
    return 0


cdef bint can_encode_in_place(const session_core* core, const request* batch, size_t size) noexcept nogil:
    """Whether a batch's only output can be written into its only reply, which is then complete before the run."""
    return (batch.next == NULL and core.n_outputs == batch.n_outputs == 1 and size >= IN_PLACE_BYTES
            and not batch.wants_timing and not batch.has_deliveries)


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
    cdef session_core* core = used.accepted.core
    cdef const tensor_spec* spec = &core.outputs[index]
    cdef tensor_data* result = &used.results[index]
    if not used.own_outputs and spec.datatype != DT_BYTES:
        return 0
    if describe_value(core, used.outputs[index], result, error) != 0:
        return -1
    if used.accepted.max_batch_size > 0 and (result.rank == 0 or result.shape[0] != rows):
        error.code = INTERNAL
        snprintf(error.text, FAILURE_TEXT_BYTES,
                 "output '%s' has a first dimension of %ld for a batch of %ld rows: the model does not batch; "
                 "set max_batch_size: 0 in its config.pbtxt", spec.name,
                 <long> (result.shape[0] if result.rank > 0 else 0), <long> rows)
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
        first += member.rows
        member = member.next
    return 0


cdef int encode_reply(instance* used, request* member, int64_t first, failure* error) noexcept nogil:
    """Write a reply; of an output that has no data yet only what comes before it.

    Without a reply where an output cannot be delivered: the request then has an error of its own.
    """
    cdef response_view reply
    cdef response_parameter[TIMING_PARAMETERS] timing
    cdef int32_t index
    cdef uint8_t* target
    cdef size_t size, content = 0
    reply.model_name = bytes_view(<const uint8_t*> used.served.model, used.served.model_size)
    reply.model_version = bytes_view(<const uint8_t*> used.served.version, used.served.version_size)
    reply.id = member.view.id
    reply.parameters = timing
    reply.n_parameters = 0
    if member.wants_timing:
        reply.n_parameters = describe_timing(
            used.taken_ns - member.arrival_ns, used.gather_ns, used.run_ns, used.rows, timing)
    reply.outputs = used.views
    reply.n_outputs = member.n_outputs
    for index in range(member.n_outputs):
        slice_output(used, member.outputs[index], first, member.rows, index)
    if member.has_deliveries:
        member.error.code = OK  # that of a run with others may stand there
        if deliver_outputs(used.accepted, member, used.views) != 0:
            return 0
    if member.n_outputs > 0:
        content = used.views[member.n_outputs - 1].content.size
    size = response_size(&reply)
    target = reserve_reply(member, size, size - content)
    if target == NULL:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for a reply of %zu bytes", size)
        return -1
    encode_response(&reply, target)
    return 0


cdef void slice_output(instance* used, int32_t output, int64_t first, int64_t rows, int32_t place) noexcept nogil:
    """Describe `rows` rows of an output from row `first` on as the reply's output `place`."""
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
