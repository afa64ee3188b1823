"""Makes ONNX Runtime's values of a session and reads those that it gave.

The caller owns every buffer it binds and must keep it until the OrtValue over it is released.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove

from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.ort cimport *
from kernels.runtime cimport check_status
from kernels.session_core cimport MAX_RANK
from kernels.status cimport EXHAUSTED, INTERNAL

cdef enum:
    ONNX_STRING = 8


cdef int bind_tensor(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil:
    """Make an OrtValue over `size` bytes at `data`, which must outlive it. 0, or -1 with `error` set."""
    return check_status(core.runtime.api, ort_CreateTensorWithDataAsOrtValue(
        core.runtime.api, core.place.memory, data, size, shape, spec.rank, spec.onnx_type, value), error)


cdef int bind_on_gpu(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil:
    """As bind_tensor, over memory of the session's GPU, which the process cannot reach."""
    return check_status(core.runtime.api, ort_CreateTensorWithDataAsOrtValue(
        core.runtime.api, core.place.gpu_memory, data, size, shape, spec.rank, spec.onnx_type, value), error)


cdef int create_strings(session_core* core, const int64_t* shape, int32_t rank, OrtValue** value,
                        failure* error) noexcept nogil:
    """Make a string tensor that owns its elements, all empty. 0, or -1 with `error` set."""
    return check_status(core.runtime.api, ort_CreateTensorAsOrtValue(
        core.runtime.api, core.runtime.allocator, shape, rank, ONNX_STRING, value), error)


cdef int64_t fill_strings(session_core* core, OrtValue* value, int64_t first, const uint8_t* content, size_t size,
                          failure* error) noexcept nogil:
    """Copy length-prefixed strings, checked before, into the elements from `first` on; return how many, or -1."""
    cdef size_t position = 0
    cdef int64_t element = first
    cdef uint32_t length
    cdef char* buffer
    while position < size:
        memcpy(&length, content + position, 4)
        if check_status(core.runtime.api, ort_GetResizedStringTensorElementBuffer(
                core.runtime.api, value, element, length, &buffer), error) != 0:
            return -1
        memcpy(buffer, content + position + 4, length)
        position += 4 + <size_t> length
        element += 1
    return element - first


cdef int describe_value(session_core* core, OrtValue* value, tensor_data* out, failure* error) noexcept nogil:
    """Read the shape and element count of a tensor. 0, or -1 with `error` set."""
    cdef OrtTensorTypeAndShapeInfo* info = NULL
    cdef ort_table api = core.runtime.api
    cdef size_t rank = 0, elements = 0
    if check_status(api, ort_GetTensorTypeAndShape(api, value, &info), error) != 0:
        return -1
    cdef int failed = check_status(api, ort_GetDimensionsCount(api, info, &rank), error)
    if failed == 0 and rank > MAX_RANK:
        error.code = INTERNAL
        snprintf(error.text, FAILURE_TEXT_BYTES, "the model gave a tensor of rank %zu; at most %d is served", rank, MAX_RANK)
        failed = -1
    if failed == 0:
        failed = check_status(api, ort_GetDimensions(api, info, out.shape, rank), error)
    if failed == 0:
        failed = check_status(api, ort_GetTensorShapeElementCount(api, info, &elements), error)
    ort_ReleaseTensorTypeAndShapeInfo(api, info)
    out.rank = rank
    out.elements = elements
    return failed


cdef int read_numbers(session_core* core, OrtValue* value, size_t element_size, tensor_data* out,
                      failure* error) noexcept nogil:
    """Point `out`, already described, at a numeric tensor's own memory, valid until the value is released."""
    cdef void* data = NULL
    out.size = <size_t> out.elements * element_size
    out.data = NULL
    if out.size == 0:
        return 0
    if check_status(core.runtime.api, ort_GetTensorMutableData(core.runtime.api, value, &data), error) != 0:
        return -1
    out.data = <const uint8_t*> data
    return 0


cdef int read_strings(session_core* core, OrtValue* value, int64_t elements, uint8_t** buffer, size_t* capacity,
                      size_t** offsets, size_t* offsets_capacity, failure* error) noexcept nogil:
    """Lay a string tensor out with 4-byte little-endian length prefixes.

    `offsets[i]` is where element i's prefix starts, `offsets[elements]` the end. Both buffers grow as needed and stay
    the caller's to free.
    """
    cdef ort_table api = core.runtime.api
    cdef size_t characters = 0, total
    if check_status(api, ort_GetStringTensorDataLength(api, value, &characters), error) != 0:
        return -1
    total = characters + 4 * <size_t> elements
    if grow(<void**> buffer, capacity, total) != 0 or grow(
            <void**> offsets, offsets_capacity, (<size_t> elements + 1) * sizeof(size_t)) != 0:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for %zu bytes of strings", total)
        return -1
    # The characters go to the end of the buffer and are moved forward one by one as the prefixes are put in.
    cdef uint8_t* source = buffer[0] + 4 * elements
    if elements > 0 and check_status(api, ort_GetStringTensorContent(
            api, value, source, characters, offsets[0], elements), error) != 0:
        return -1
    spread_strings(buffer[0], source, characters, offsets[0], elements)
    return 0


cdef void spread_strings(uint8_t* target, uint8_t* source, size_t characters, size_t* offsets,
                         int64_t elements) noexcept nogil:
    """Put a length prefix before each string; the gap between target and source shrinks by 4 with each."""
    cdef size_t position = 0, start, end
    cdef uint32_t length
    cdef int64_t element
    for element in range(elements):
        start = offsets[element]
        end = offsets[element + 1] if element + 1 < elements else characters
        length = <uint32_t> (end - start)
        offsets[element] = position
        memcpy(target + position, &length, 4)
        memmove(target + position + 4, source + start, length)
        position += 4 + <size_t> length
    offsets[elements] = position


cdef int grow(void** buffer, size_t* capacity, size_t needed) noexcept nogil:
    cdef void* larger
    if needed <= capacity[0] and buffer[0] != NULL:
        return 0
    larger = realloc(buffer[0], needed + 64)
    if larger == NULL:
        return -1
    buffer[0] = larger
    capacity[0] = needed + 64
    return 0


cdef void release_values(session_core* core, OrtValue** values, int32_t count) noexcept nogil:
    """Release every value and set it to NULL."""
    cdef int32_t index
    for index in range(count):
        if values[index] != NULL:
            ort_ReleaseValue(core.runtime.api, values[index])
            values[index] = NULL
