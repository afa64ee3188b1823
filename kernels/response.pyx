"""Encodes ModelInferResponse into one buffer of known size, fields in the order of their numbers."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen

from kernels.datatype cimport datatype_name
from kernels.varint cimport put_varint, varint_size
from kernels.wire cimport bytes_view

# Tags: field number << 3 | wire type: 2, length-delimited, but for numbers.
cdef enum:  # ModelInferResponse
    MODEL_NAME = 0x0A
    MODEL_VERSION = 0x12
    ID = 0x1A
    OUTPUTS = 0x2A
    RAW_OUTPUT_CONTENTS = 0x32

cdef enum:  # InferOutputTensor
    NAME = 0x0A
    DATATYPE = 0x12
    SHAPE = 0x1A

cdef enum:  # both messages' parameters, an entry of them, and InferParameter
    PARAMETERS = 0x22
    ENTRY_KEY = 0x0A
    ENTRY_VALUE = 0x12
    VALUE_INT64 = 0x10
    VALUE_STRING = 0x1A


cdef bytes_view BYTE_SIZE_KEY = view_key("shared_memory_byte_size")
cdef bytes_view OFFSET_KEY = view_key("shared_memory_offset")
cdef bytes_view REGION_KEY = view_key("shared_memory_region")


cdef inline bytes_view view_key(const char* key) noexcept nogil:
    return bytes_view(<const uint8_t*> key, strlen(key))


cdef inline size_t field_size(size_t size) noexcept nogil:
    """Return the bytes of a length-delimited field; every tag here takes one."""
    return 1 + varint_size(size) + size


cdef inline size_t text_size(bytes_view text) noexcept nogil:
    return field_size(text.size) if text.size != 0 else 0


cdef inline bytes_view datatype_text(int datatype) noexcept nogil:
    cdef bytes_view text
    text.data = <const uint8_t*> datatype_name(datatype)
    text.size = strlen(datatype_name(datatype))
    return text


cdef size_t dims_size(const output_view* output) noexcept nogil:
    cdef size_t size = 0
    cdef int32_t axis
    for axis in range(output.rank):
        size += varint_size(<uint64_t> output.shape[axis])
    return size


cdef size_t tensor_size(const output_view* output) noexcept nogil:
    cdef size_t dims = dims_size(output)
    cdef size_t shape = field_size(dims) if dims != 0 else 0
    cdef size_t parameters = region_size(output) if output.region.data != NULL else 0
    return text_size(output.name) + text_size(datatype_text(output.datatype)) + shape + parameters


cdef size_t region_size(const output_view* output) noexcept nogil:
    """Return the bytes of the parameters that say where in shared memory an output is."""
    cdef size_t size = number_size(BYTE_SIZE_KEY, output.region_bytes)
    if output.region_offset != 0:
        size += number_size(OFFSET_KEY, <uint64_t> output.region_offset)
    return size + entry_size(REGION_KEY, field_size(output.region.size))


cdef inline size_t number_size(bytes_view key, uint64_t value) noexcept nogil:
    return entry_size(key, 1 + varint_size(value))


cdef inline size_t entry_size(bytes_view key, size_t value) noexcept nogil:
    """Return the bytes of a parameter whose InferParameter has `value` of them."""
    return field_size(field_size(key.size) + field_size(value))


cdef size_t response_size(const response_view* response) noexcept nogil:
    """Return the exact number of bytes that encode_response writes."""
    cdef size_t size = text_size(response.model_name) + text_size(response.model_version) + text_size(response.id)
    cdef int32_t index
    for index in range(response.n_parameters):
        size += number_size(response.parameters[index].name, <uint64_t> response.parameters[index].value)
    for index in range(response.n_outputs):
        size += field_size(tensor_size(&response.outputs[index]))
        size += field_size(response.outputs[index].content.size)
    return size


cdef inline uint8_t* put_head(uint8_t* dst, uint8_t tag, size_t size) noexcept nogil:
    dst[0] = tag
    return put_varint(dst + 1, size)


cdef inline uint8_t* put_content(uint8_t* dst, uint8_t tag, bytes_view content) noexcept nogil:
    dst = put_head(dst, tag, content.size)
    if content.data != NULL and content.size != 0:
        memcpy(dst, content.data, content.size)
    return dst + content.size


cdef inline uint8_t* put_text(uint8_t* dst, uint8_t tag, bytes_view text) noexcept nogil:
    return put_content(dst, tag, text) if text.size != 0 else dst


cdef uint8_t* put_tensor(uint8_t* dst, const output_view* output) noexcept nogil:
    cdef int32_t axis
    dst = put_head(dst, OUTPUTS, tensor_size(output))
    dst = put_text(dst, NAME, output.name)
    dst = put_text(dst, DATATYPE, datatype_text(output.datatype))
    if output.rank != 0:
        dst = put_head(dst, SHAPE, dims_size(output))
    for axis in range(output.rank):
        dst = put_varint(dst, <uint64_t> output.shape[axis])
    return put_region(dst, output) if output.region.data != NULL else dst


cdef uint8_t* put_region(uint8_t* dst, const output_view* output) noexcept nogil:
    """Write where in shared memory an output is, by the order of the keys; an offset of 0 is left out."""
    dst = put_number(dst, BYTE_SIZE_KEY, output.region_bytes)
    if output.region_offset != 0:
        dst = put_number(dst, OFFSET_KEY, <uint64_t> output.region_offset)
    dst = put_entry(dst, REGION_KEY, field_size(output.region.size))
    return put_content(dst, VALUE_STRING, output.region)


cdef inline uint8_t* put_number(uint8_t* dst, bytes_view key, uint64_t value) noexcept nogil:
    dst = put_entry(dst, key, 1 + varint_size(value))
    dst[0] = VALUE_INT64
    return put_varint(dst + 1, value)


cdef inline uint8_t* put_entry(uint8_t* dst, bytes_view key, size_t value) noexcept nogil:
    """Write a parameter up to its InferParameter, which has `value` bytes."""
    dst = put_head(dst, PARAMETERS, field_size(key.size) + field_size(value))
    dst = put_content(dst, ENTRY_KEY, key)
    return put_head(dst, ENTRY_VALUE, value)


cdef size_t encode_response(const response_view* response, uint8_t* dst) noexcept nogil:
    """Write a response and return its size, that of response_size; `dst` has room for it.

    Contents come last. One without data is left to the caller to fill in.
    """
    cdef uint8_t* start = dst
    cdef int32_t index
    dst = put_text(dst, MODEL_NAME, response.model_name)
    dst = put_text(dst, MODEL_VERSION, response.model_version)
    dst = put_text(dst, ID, response.id)
    for index in range(response.n_parameters):
        dst = put_number(dst, response.parameters[index].name, <uint64_t> response.parameters[index].value)
    for index in range(response.n_outputs):
        dst = put_tensor(dst, &response.outputs[index])
    for index in range(response.n_outputs):
        dst = put_content(dst, RAW_OUTPUT_CONTENTS, response.outputs[index].content)
    return <size_t> (dst - start)
