"""Makes kept outputs of a reply as it is on the wire, and the other way round: steps and callers share what is cached."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kernels.alignment cimport align
from kernels.instance cimport version_name
from kernels.kept_outputs cimport kept_tensor
from kernels.request cimport request, reserve_reply
from kernels.response cimport encode_response, output_view, response_size, response_view
from kernels.session cimport MAX_RANK, tensor_spec
from kernels.signature cimport signature
from kernels.wire cimport DELIMITED, bytes_view, cursor, open_cursor, read_span, read_tag, read_varint

cdef enum:
    OUTPUTS_FIELD = 5            # ModelInferResponse
    CONTENTS_FIELD = 6
    SHAPE_FIELD = 3              # InferOutputTensor


cdef int unpack_reply(const signature* accepted, bytes_view reply, request* asked) noexcept nogil:
    """Answer a step with an encoded reply to the same outputs. 0, or -1 without memory, or for no such reply."""
    cdef cursor place = open_cursor(reply)
    cdef bytes_view content
    cdef kept_tensor* tensors = asked.kept.tensors
    cdef int32_t n_described = 0, n_filled = 0
    cdef unsigned int tag = 0
    while place.at != place.end:
        if read_tag(&place, &tag) != 0 or tag & 7 != DELIMITED or read_span(&place, &content) != 0:
            return -1
        if tag >> 3 == OUTPUTS_FIELD:
            if n_described == asked.n_outputs or read_shape(content, &tensors[n_described]) != 0:
                return -1
            tensors[n_described].datatype = accepted.outputs[asked.outputs[n_described]].datatype
            n_described += 1
        elif tag >> 3 == CONTENTS_FIELD:
            if n_filled == asked.n_outputs:
                return -1
            tensors[n_filled].content = content
            n_filled += 1
    if n_described != asked.n_outputs or n_filled != asked.n_outputs:
        return -1
    return copy_contents(asked)


cdef int copy_contents(request* asked) noexcept nogil:
    """Lay the contents out in the request's own reply, as a run would have. 0, or -1 without memory."""
    cdef kept_tensor* tensors = asked.kept.tensors
    cdef size_t place = 0, size = 0
    cdef uint8_t* target
    cdef int32_t index
    for index in range(asked.n_outputs):
        place = align(size)
        size = place + tensors[index].content.size
    target = reserve_reply(asked, max(size, <size_t> 1), place)
    if target == NULL:
        return -1
    size = 0
    for index in range(asked.n_outputs):
        place = align(size)
        size = place + tensors[index].content.size
        if tensors[index].content.size > 0:
            memcpy(target + place, tensors[index].content.data, tensors[index].content.size)
        tensors[index].content.data = target + place
    return 0


cdef int read_shape(bytes_view output, kept_tensor* tensor) noexcept nogil:
    """Read the shape of an InferOutputTensor; the rest of it is known. 0, or -1 for no such message."""
    cdef cursor place = open_cursor(output)
    cdef cursor dimensions
    cdef bytes_view content
    cdef unsigned int tag = 0
    cdef uint64_t dimension
    tensor.rank = 0
    while place.at != place.end:
        if read_tag(&place, &tag) != 0 or tag & 7 != DELIMITED or read_span(&place, &content) != 0:
            return -1
        if tag >> 3 != SHAPE_FIELD:
            continue
        dimensions = open_cursor(content)
        while dimensions.at != dimensions.end:
            if tensor.rank == MAX_RANK or read_varint(&dimensions, &dimension) != 0:
                return -1
            tensor.shape[tensor.rank] = <int64_t> dimension
            tensor.rank += 1
    return 0


cdef bytes_view pack_reply(const signature* accepted, const version_name* served, const request* answered) noexcept nogil:
    """Return the reply that a caller would have got instead of a step, without an id, to be freed; empty without memory."""
    cdef response_view reply
    cdef bytes_view packed = bytes_view(NULL, 0)
    cdef output_view* outputs = <output_view*> malloc(answered.n_outputs * sizeof(output_view) + 1)
    cdef int32_t index
    if outputs == NULL:
        return packed
    for index in range(answered.n_outputs):
        describe_output(&accepted.outputs[answered.outputs[index]], &answered.kept.tensors[index], &outputs[index])
    reply.model_name = bytes_view(<const uint8_t*> served.model, served.model_size)
    reply.model_version = bytes_view(<const uint8_t*> served.version, served.version_size)
    reply.id = bytes_view(NULL, 0)
    reply.parameters, reply.n_parameters = NULL, 0
    reply.outputs, reply.n_outputs = outputs, answered.n_outputs
    packed.size = response_size(&reply)
    packed.data = <const uint8_t*> malloc(packed.size)
    if packed.data != NULL:
        encode_response(&reply, <uint8_t*> packed.data)
    free(outputs)
    return packed


cdef void describe_output(const tensor_spec* spec, const kept_tensor* kept, output_view* output) noexcept nogil:
    output.name = bytes_view(<const uint8_t*> spec.name, spec.name_size)
    output.datatype, output.rank, output.shape = kept.datatype, kept.rank, <const int64_t*> kept.shape
    output.content = kept.content
    output.region = bytes_view(NULL, 0)
