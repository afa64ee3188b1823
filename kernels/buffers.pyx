"""The memory of an instance: tables for its tensors, and buffers that grow with its batches and shrink after large ones."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free

from kernels.codec cimport output_view
from kernels.datatype cimport DT_BYTES
from kernels.device cimport allocate_buffer, device, free_buffer
from kernels.failure cimport FAILURE_TEXT_BYTES, failure
from kernels.instance cimport instance, version_name
from kernels.ort cimport OrtValue
from kernels.session cimport MAX_RANK, session_core, tensor_data
from kernels.signature cimport signature
from kernels.status cimport EXHAUSTED
from kernels.uneven_batch cimport create_uneven, free_uneven, trim_cropped

cdef enum:
    KEPT_BYTES = 8 * 1024 * 1024    # a larger buffer whose size the client chose is freed after its run


cdef int open_instance(instance* made, const signature* accepted, session_core* core,
                       const version_name* served) noexcept nogil:
    """Allocate the tables; the buffers grow with the first batches. 0, or -1 without memory (close_instance frees)."""
    cdef size_t n_inputs = core.n_inputs + 1, n_outputs = core.n_outputs + 1
    made.accepted = accepted
    made.core = core
    made.served = served
    made.own_outputs = not (core.batched_outputs if accepted.max_batch_size > 0 else core.fixed_outputs)
    if accepted.uneven != NULL:
        # What the first dimension of a ragged model's output is called says nothing of its size.
        made.own_outputs = made.own_outputs or accepted.uneven.has_ragged
        made.uneven = create_uneven(core.n_outputs)
        if made.uneven == NULL:
            return -1
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
        free_buffers(used)
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
    free_uneven(used.uneven)


cdef void free_buffers(instance* used) noexcept nogil:
    cdef session_core* core = used.core
    cdef int32_t index
    if used.input_buffers != NULL:
        for index in range(core.n_inputs):
            free_buffer(&core.place, used.input_buffers[index])
    if used.output_buffers != NULL:
        for index in range(core.n_outputs):
            free_output_buffer(used, index)
    if used.offsets != NULL:
        for index in range(core.n_outputs):
            free(used.offsets[index])


cdef void free_output_buffer(instance* used, int32_t index) noexcept nogil:
    """Free what numbers were written into by the device, or strings laid out in by the process."""
    if used.core.outputs[index].datatype == DT_BYTES:
        free(used.output_buffers[index])
    else:
        free_buffer(&used.core.place, used.output_buffers[index])


cdef int reserve(device* place, uint8_t** buffer, size_t* capacity, size_t needed, failure* error) noexcept nogil:
    """Make a buffer at least `needed` bytes large; what it held is lost."""
    if needed <= capacity[0] and buffer[0] != NULL:
        return 0
    free_buffer(place, buffer[0])
    capacity[0] = 0
    buffer[0] = <uint8_t*> allocate_buffer(place, needed)
    if buffer[0] == NULL:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for a batch buffer of %zu bytes", needed)
        return -1
    capacity[0] = needed
    return 0


cdef void trim_buffers(instance* used) noexcept nogil:
    """Free what a large request left: an input of open size, and strings with their offsets."""
    cdef session_core* core = used.core
    cdef int32_t index
    for index in range(core.n_inputs):
        if (used.input_capacities[index] > KEPT_BYTES
                and (used.accepted.max_batch_size == 0 or core.inputs[index].inner_elements < 0 or used.uneven != NULL)):
            free_buffer(&core.place, used.input_buffers[index])
            used.input_buffers[index] = NULL
            used.input_capacities[index] = 0
    if used.uneven != NULL:
        trim_cropped(used.uneven)
    for index in range(core.n_outputs):
        if core.outputs[index].datatype == DT_BYTES:
            trim(<void**> &used.output_buffers[index], &used.output_capacities[index])
            trim(<void**> &used.offsets[index], &used.offsets_capacities[index])


cdef void trim(void** buffer, size_t* capacity) noexcept nogil:
    if capacity[0] > KEPT_BYTES:
        free(buffer[0])
        buffer[0] = NULL
        capacity[0] = 0
