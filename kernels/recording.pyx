"""Gives each recorded batch size tensors at places of the device that never change, as a CUDA graph demands.

A batch is filled up with rows of zeros to the next recorded size, copied to those places, run, and its own rows are
copied back: what the added rows give stays on the device. All on the session's stream, so that nothing waits but the
end. The recording itself is ONNX Runtime's: it is made at the first run of a size, and a run says by its options which
one it is.
One batch at a time: the session's lane runs it.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from kernels.datatype cimport datatype_size
from kernels.device cimport (
    allocate_on_gpu, copy_from_gpu, copy_to_gpu, finish_copies, free_on_gpu, open_gpu_allocator,
)
from kernels.failure cimport failure
from kernels.ort cimport *
from kernels.runtime cimport check_status, raise_status
from kernels.session cimport MAX_RANK, recording, recordings, session_core, tensor_spec

# By which ONNX Runtime tells recordings apart: a number of 1 or more, -1 for a run that is none.
cdef const char* RECORDING_NUMBER = b"gpu_graph_id"
UNRECORDED = -1


cdef int open_recordings(session_core* core, tuple sizes) except -1:
    """Prepare to record batches of these sizes, which ascend; close_recordings frees, after an error too."""
    cdef recordings* made = <recordings*> calloc(1, sizeof(recordings))
    cdef int64_t largest = max(sizes)
    cdef int32_t index
    if made == NULL:
        raise MemoryError
    core.recorded = made
    open_gpu_allocator(&core.place, core.runtime, core.handle)
    made.inputs = <uint8_t**> calloc(core.n_inputs + 1, sizeof(void*))
    made.outputs = <uint8_t**> calloc(core.n_outputs + 1, sizeof(void*))
    made.sizes = <recording*> calloc(len(sizes) + 1, sizeof(recording))
    if made.inputs == NULL or made.outputs == NULL or made.sizes == NULL:
        raise MemoryError
    for index in range(core.n_inputs):
        made.inputs[index] = make_place(core, &core.inputs[index], largest)
    for index in range(core.n_outputs):
        made.outputs[index] = make_place(core, &core.outputs[index], largest)
    core.run_options = make_options(core, UNRECORDED)
    for rows in sizes:
        made.count += 1
        open_recording(core, &made.sizes[made.count - 1], rows)
    return 0


cdef uint8_t* make_place(session_core* core, const tensor_spec* spec, int64_t rows) except NULL:
    """Allocate room on the device for so many rows of a tensor."""
    cdef void* place = NULL
    raise_status(core.runtime.api, allocate_on_gpu(&core.place, size_rows(spec, rows), &place))
    return <uint8_t*> place


cdef OrtRunOptions* make_options(session_core* core, int64_t number) except NULL:
    cdef OrtRunOptions* made = NULL
    cdef bytes text = str(number).encode()
    raise_status(core.runtime.api, ort_CreateRunOptions(core.runtime.api, &made))
    try:
        raise_status(core.runtime.api, ort_AddRunConfigEntry(core.runtime.api, made, RECORDING_NUMBER, text))
    except:
        ort_ReleaseRunOptions(core.runtime.api, made)
        raise
    return made


cdef int open_recording(session_core* core, recording* made, int64_t rows) except -1:
    cdef int32_t index
    made.rows = rows
    made.inputs = <OrtValue**> calloc(core.n_inputs + 1, sizeof(void*))
    made.outputs = <OrtValue**> calloc(core.n_outputs + 1, sizeof(void*))
    if made.inputs == NULL or made.outputs == NULL:
        raise MemoryError
    made.options = make_options(core, rows)
    for index in range(core.n_inputs):
        bind_place(core, &core.inputs[index], core.recorded.inputs[index], rows, &made.inputs[index])
    for index in range(core.n_outputs):
        bind_place(core, &core.outputs[index], core.recorded.outputs[index], rows, &made.outputs[index])
    return 0


cdef int bind_place(session_core* core, const tensor_spec* spec, void* place, int64_t rows, OrtValue** value) except -1:
    cdef int64_t shape[MAX_RANK]
    memcpy(shape, spec.dims, spec.rank * sizeof(int64_t))
    shape[0] = rows
    return raise_status(core.runtime.api, ort_CreateTensorWithDataAsOrtValue(
        core.runtime.api, core.place.gpu_memory, place, size_rows(spec, rows), shape, spec.rank, spec.onnx_type, value))


cdef void close_recordings(session_core* core) noexcept nogil:
    """Free what open_recordings made; a session without any is fine."""
    cdef recordings* used = core.recorded
    cdef int32_t index
    if used == NULL:
        return
    for index in range(used.count):
        close_recording(core, &used.sizes[index])
    free_places(core, used.inputs, core.n_inputs)
    free_places(core, used.outputs, core.n_outputs)
    free(used.sizes)
    free(used)
    core.recorded = NULL
    if core.run_options != NULL:
        ort_ReleaseRunOptions(core.runtime.api, core.run_options)
        core.run_options = NULL


cdef void close_recording(session_core* core, recording* used) noexcept nogil:
    free_values(core, used.inputs, core.n_inputs)
    free_values(core, used.outputs, core.n_outputs)
    if used.options != NULL:
        ort_ReleaseRunOptions(core.runtime.api, used.options)


cdef void free_values(session_core* core, OrtValue** values, int32_t count) noexcept nogil:
    cdef int32_t index
    if values == NULL:
        return
    for index in range(count):
        if values[index] != NULL:
            ort_ReleaseValue(core.runtime.api, values[index])
    free(values)


cdef void free_places(session_core* core, uint8_t** places, int32_t count) noexcept nogil:
    cdef int32_t index
    if places == NULL:
        return
    for index in range(count):
        free_on_gpu(&core.place, places[index])
    free(places)


cdef size_t size_rows(const tensor_spec* spec, int64_t rows) noexcept nogil:
    return <size_t> (rows * spec.inner_elements) * datatype_size(spec.datatype)


cdef const recording* find_recording(const session_core* core, int64_t rows) noexcept nogil:
    """The smallest recorded size that has room for so many rows; NULL where none has, or nothing is recorded."""
    cdef int32_t index
    if core.recorded == NULL:
        return NULL
    for index in range(core.recorded.count):
        if core.recorded.sizes[index].rows >= rows:
            return &core.recorded.sizes[index]
    return NULL


cdef int run_recording(session_core* core, const recording* chosen, uint8_t** inputs, uint8_t** outputs, int64_t rows,
                       failure* error) noexcept nogil:
    """Run whole batches of the size that lie at `inputs`, and copy `rows` rows of what comes of them to `outputs`.

    0, or -1 with `error` set. On the lane.
    """
    cdef int32_t index
    for index in range(core.n_inputs):
        if copy_to_gpu(&core.place, core.recorded.inputs[index], inputs[index],
                       size_rows(&core.inputs[index], chosen.rows), error) != 0:
            return -1
    if check_status(core.runtime.api, ort_Run(
            core.runtime.api, core.handle, chosen.options, core.input_names, <const OrtValue* const*> chosen.inputs,
            core.n_inputs, core.output_names, core.n_outputs, chosen.outputs), error) != 0:
        return -1
    for index in range(core.n_outputs):
        if copy_from_gpu(&core.place, outputs[index], core.recorded.outputs[index],
                         size_rows(&core.outputs[index], rows), error) != 0:
            return -1
    return finish_copies(&core.place, error)


cdef tuple list_places(session_core* core, const recording* chosen):
    """The addresses of a size's inputs and outputs, as ONNX Runtime has them."""
    values = []
    cdef void* data
    cdef int32_t index
    for index in range(core.n_inputs + core.n_outputs):
        data = NULL
        raise_status(core.runtime.api, ort_GetTensorMutableData(
            core.runtime.api,
            chosen.inputs[index] if index < core.n_inputs else chosen.outputs[index - core.n_inputs], &data))
        values.append(<size_t> data)
    return tuple(values[:core.n_inputs]), tuple(values[core.n_inputs:])
