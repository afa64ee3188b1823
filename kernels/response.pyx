"""Encodes ModelInferResponse into one buffer of known size, fields in the order of their numbers."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen

from kernels.datatype cimport datatype_name
from kernels.wire cimport HIGH_BIT, bytes_view

# Tags: field number << 3 | wire type: 2, length-delimited, but for numbers.
cdef enum:  # ModelInferResponse
    MODEL_NAME = 0x0A
    MODEL_VERSION = 0x12
    ID = 0x1A
    PARAMETERS = 0x22
    OUTPUTS = 0x2A
    RAW_OUTPUT_CONTENTS = 0x32

cdef enum:  # a map's entry, and InferParameter
    ENTRY_KEY = 0x0A
    ENTRY_VALUE = 0x12
    INT64_PARAM = 0x10

cdef enum:  # InferOutputTensor
    NAME = 0x0A
    DATATYPE = 0x12
    SHAPE = 0x1A


cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= HIGH_BIT:
        value >>= 7
        size += 1
    return size


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
    return text_size(output.name) + text_size(datatype_text(output.datatype)) + shape


cdef inline size_t value_size(const response_parameter* parameter) noexcept nogil:
    return 1 + varint_size(<uint64_t> parameter.value)


cdef size_t entry_size(const response_parameter* parameter) noexcept nogil:
    return field_size(parameter.name.size) + field_size(value_size(parameter))


cdef size_t response_size(const response_view* response) noexcept nogil:
    """Return the exact number of bytes that encode_response writes."""
    cdef size_t size = text_size(response.model_name) + text_size(response.model_version) + text_size(response.id)
    cdef int32_t index
    for index in range(response.n_parameters):
        size += field_size(entry_size(&response.parameters[index]))
    for index in range(response.n_outputs):
        size += field_size(tensor_size(&response.outputs[index]))
        size += field_size(response.outputs[index].content.size)
    return size


cdef inline uint8_t* put_varint(uint8_t* dst, uint64_t value) noexcept nogil:
    while value >= HIGH_BIT:
        dst[0] = <uint8_t> ((value & 0x7F) | HIGH_BIT)
        dst += 1
        value >>= 7
    dst[0] = <uint8_t> value
    return dst + 1


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


cdef uint8_t* put_parameter(uint8_t* dst, const response_parameter* parameter) noexcept nogil:
    dst = put_head(dst, PARAMETERS, entry_size(parameter))
    dst = put_content(dst, ENTRY_KEY, parameter.name)
    dst = put_head(dst, ENTRY_VALUE, value_size(parameter))
    dst[0] = INT64_PARAM
    return put_varint(dst + 1, <uint64_t> parameter.value)


cdef uint8_t* put_tensor(uint8_t* dst, const output_view* output) noexcept nogil:
    cdef int32_t axis
    dst = put_head(dst, OUTPUTS, tensor_size(output))
    dst = put_text(dst, NAME, output.name)
    dst = put_text(dst, DATATYPE, datatype_text(output.datatype))
    if output.rank != 0:
        dst = put_head(dst, SHAPE, dims_size(output))
    for axis in range(output.rank):
        dst = put_varint(dst, <uint64_t> output.shape[axis])
    return dst


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
        dst = put_parameter(dst, &response.parameters[index])
    for index in range(response.n_outputs):
        dst = put_tensor(dst, &response.outputs[index])
    for index in range(response.n_outputs):
        dst = put_content(dst, RAW_OUTPUT_CONTENTS, response.outputs[index].content)
    return <size_t> (dst - start)
