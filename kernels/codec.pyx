"""Decodes ModelInferRequest in place: every field becomes a view, checked as protobuf's own parser checks it."""

from libc.stdint cimport INT32_MAX, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from kernels.contents cimport copy_contents, count_contents
from kernels.datatype cimport DT_BYTES, datatype_size, find_datatype
from kernels.wire cimport *

# Tags: field number << 3 | wire type.
cdef enum:  # ModelInferRequest
    REQUEST_MODEL_NAME = 0x0A
    REQUEST_MODEL_VERSION = 0x12
    REQUEST_ID = 0x1A
    REQUEST_PARAMETERS = 0x22
    REQUEST_INPUTS = 0x2A
    REQUEST_OUTPUTS = 0x32
    REQUEST_RAW = 0x3A

cdef enum:  # InferInputTensor
    INPUT_NAME = 0x0A
    INPUT_DATATYPE = 0x12
    INPUT_SHAPE = 0x18
    INPUT_SHAPE_PACKED = 0x1A
    INPUT_PARAMETERS = 0x22
    INPUT_CONTENTS = 0x2A

cdef enum:  # InferRequestedOutputTensor
    OUTPUT_NAME = 0x0A
    OUTPUT_PARAMETERS = 0x12

cdef enum:  # a map's entry, and InferParameter
    ENTRY_KEY = 0x0A
    ENTRY_VALUE = 0x12
    VALUE_BOOL = 0x08
    VALUE_INT64 = 0x10
    VALUE_STRING = 0x1A
    VALUE_DOUBLE = 0x21
    VALUE_UINT64 = 0x28

cdef enum:  # levels that may still open inside each kind of message; inside an output as inside an input
    REQUEST_DEPTH = MAX_DEPTH
    INPUT_DEPTH = 99

cdef uint8_t[1] NOTHING  # where an empty view points: memcpy and memcmp must not see NULL
cdef bytes_view EMPTY
EMPTY.data = NOTHING
EMPTY.size = 0


cdef int make_room(void** items, int32_t* capacity, int32_t count, size_t item_size) noexcept nogil:
    """Grow a full pool to twice its size, at least INITIAL_ENTRIES, at most MAX_ENTRIES."""
    cdef int32_t wanted
    cdef void* grown
    if count < capacity[0]:
        return DECODE_OK
    if count >= MAX_ENTRIES:
        return DECODE_LIMIT
    wanted = INITIAL_ENTRIES if count < INITIAL_ENTRIES else count * 2
    grown = realloc(items[0], <size_t> wanted * item_size)
    if grown == NULL:
        return DECODE_NO_MEMORY
    items[0] = grown
    capacity[0] = wanted
    return DECODE_OK


cdef int reserve_input(request_view* out) noexcept nogil:
    cdef void* items = out.inputs
    cdef int status = make_room(&items, &out.inputs_capacity, out.n_inputs, sizeof(tensor_view))
    out.inputs = <tensor_view*> items
    return status


cdef int reserve_output(request_view* out) noexcept nogil:
    cdef void* items = out.outputs
    cdef int status = make_room(&items, &out.outputs_capacity, out.n_outputs, sizeof(requested_output_view))
    out.outputs = <requested_output_view*> items
    return status


cdef int reserve_parameter(request_view* out) noexcept nogil:
    cdef void* items = out.parameters
    cdef int status = make_room(&items, &out.parameters_capacity, out.n_parameters, sizeof(parameter_view))
    out.parameters = <parameter_view*> items
    return status


cdef int reserve_raw(request_view* out) noexcept nogil:
    cdef void* items = out.raw
    cdef int status = make_room(&items, &out.raw_capacity, out.n_raw, sizeof(bytes_view))
    out.raw = <bytes_view*> items
    return status


cdef int reserve_piece(request_view* out) noexcept nogil:
    cdef void* items = out.pieces
    cdef int status = make_room(&items, &out.pieces_capacity, out.n_pieces, sizeof(bytes_view))
    out.pieces = <bytes_view*> items
    return status


cdef int reserve_dim(request_view* out) noexcept nogil:
    cdef void* items = out.dims
    cdef int status = make_room(&items, &out.dims_capacity, out.n_dims, sizeof(int64_t))
    out.dims = <int64_t*> items
    return status


cdef int init_request_view(request_view* out) noexcept nogil:
    """Make an empty view with some room; DECODE_NO_MEMORY leaves nothing to free."""
    cdef int status
    memset(out, 0, sizeof(request_view))
    status = (reserve_input(out) or reserve_output(out) or reserve_parameter(out) or reserve_raw(out)
              or reserve_piece(out) or reserve_dim(out))
    if status != DECODE_OK:
        free_request_view(out)
    return status


cdef int reserve_tensors(request_view* out, int32_t inputs, int32_t outputs, int32_t parameters) noexcept nogil:
    """Make room in a view that is filled in, not decoded: for raw inputs, outputs and parameters. 0, or a DECODE status."""
    cdef int status
    out.n_inputs, out.n_raw, out.n_outputs, out.n_parameters = inputs - 1, inputs - 1, outputs - 1, parameters - 1
    status = reserve_input(out) or reserve_raw(out) or reserve_output(out) or reserve_parameter(out)
    out.n_inputs = out.n_raw = out.n_outputs = out.n_parameters = 0
    return status


cdef void free_request_view(request_view* out) noexcept nogil:
    """Free a view's memory and leave it empty and usable."""
    free(out.inputs)
    free(out.outputs)
    free(out.parameters)
    free(out.raw)
    free(out.pieces)
    free(out.dims)
    memset(out, 0, sizeof(request_view))


cdef void forget_message(request_view* out) noexcept nogil:
    out.model_name = out.model_version = out.id = EMPTY
    out.n_inputs = out.n_outputs = out.n_parameters = out.n_raw = out.n_pieces = out.n_dims = 0


cdef void clear_request_view(request_view* out) noexcept nogil:
    """Forget the message; keep the memory unless one large message has made it large."""
    if max(out.inputs_capacity, out.outputs_capacity, out.parameters_capacity,
           out.raw_capacity, out.pieces_capacity, out.dims_capacity) > KEPT_ENTRIES:
        free_request_view(out)
    forget_message(out)


cdef inline int take_text(bytes_view span, bytes_view* text) noexcept nogil:
    text[0] = span
    return DECODE_OK if is_utf8(span) else DECODE_MALFORMED


cdef int decode_request(const uint8_t* data, size_t size, request_view* out) noexcept nogil:
    """Point `out` into a message; after any status but DECODE_OK it holds nothing of use."""
    cdef bytes_view message
    cdef int status
    cdef int32_t index
    forget_message(out)
    if size > INT32_MAX:
        return DECODE_LIMIT
    message.data = data
    message.size = size
    status = decode_request_fields(message, out)
    for index in range(out.n_inputs):  # only now does the pool of dimensions no longer move
        out.inputs[index].shape = out.dims + out.inputs[index].first_dim
    return status


cdef int decode_request_fields(bytes_view message, request_view* out) noexcept nogil:
    cdef cursor place = open_cursor(message)
    cdef field item
    cdef int status = DECODE_OK
    while place.at != place.end and status == DECODE_OK:
        if read_field(&place, &item, REQUEST_DEPTH) != DECODE_OK:
            return DECODE_MALFORMED
        if item.tag == REQUEST_MODEL_NAME:
            status = take_text(item.span, &out.model_name)
        elif item.tag == REQUEST_MODEL_VERSION:
            status = take_text(item.span, &out.model_version)
        elif item.tag == REQUEST_ID:
            status = take_text(item.span, &out.id)
        elif item.tag == REQUEST_PARAMETERS:
            status = decode_parameter(item.span, OWNER_REQUEST, out)
        elif item.tag == REQUEST_INPUTS:
            status = decode_input(item.span, out)
        elif item.tag == REQUEST_OUTPUTS:
            status = decode_requested_output(item.span, out)
        elif item.tag == REQUEST_RAW:
            status = add_raw(item.span, out)
    return status


cdef int add_raw(bytes_view content, request_view* out) noexcept nogil:
    cdef int status = reserve_raw(out)
    if status == DECODE_OK:
        out.raw[out.n_raw] = content
        out.n_raw += 1
    return status


cdef int decode_input(bytes_view message, request_view* out) noexcept nogil:
    cdef int status = reserve_input(out)
    cdef tensor_view* tensor
    if status != DECODE_OK:
        return status
    tensor = &out.inputs[out.n_inputs]
    memset(tensor, 0, sizeof(tensor_view))
    tensor.name = tensor.datatype_name = EMPTY
    tensor.first_dim = out.n_dims
    tensor.first_piece = out.n_pieces
    status = decode_input_fields(message, tensor, out)
    tensor.datatype = find_datatype(tensor.datatype_name.data, tensor.datatype_name.size)
    tensor.rank = out.n_dims - tensor.first_dim
    tensor.n_pieces = out.n_pieces - tensor.first_piece
    out.n_inputs += 1
    return status


cdef int decode_input_fields(bytes_view message, tensor_view* tensor, request_view* out) noexcept nogil:
    cdef cursor place = open_cursor(message)
    cdef field item
    cdef int status = DECODE_OK
    while place.at != place.end and status == DECODE_OK:
        if read_field(&place, &item, INPUT_DEPTH) != DECODE_OK:
            return DECODE_MALFORMED
        if item.tag == INPUT_NAME:
            status = take_text(item.span, &tensor.name)
        elif item.tag == INPUT_DATATYPE:
            status = take_text(item.span, &tensor.datatype_name)
        elif item.tag == INPUT_SHAPE_PACKED:
            status = add_dims(item.span, out)
        elif item.tag == INPUT_SHAPE:
            status = add_dim(item.bits, out)
        elif item.tag == INPUT_PARAMETERS:
            status = decode_parameter(item.span, out.n_inputs, out)
        elif item.tag == INPUT_CONTENTS:
            status = add_piece(item.span, tensor, out)
    return status


cdef int add_dim(uint64_t dim, request_view* out) noexcept nogil:
    cdef int status = reserve_dim(out)
    if status == DECODE_OK:
        out.dims[out.n_dims] = <int64_t> dim
        out.n_dims += 1
    return status


cdef int add_dims(bytes_view packed, request_view* out) noexcept nogil:
    cdef cursor place = open_cursor(packed)
    cdef uint64_t dim = 0
    cdef int status = DECODE_OK
    while place.at != place.end and status == DECODE_OK:
        status = read_varint(&place, &dim) or add_dim(dim, out)
    return status


cdef int add_piece(bytes_view contents, tensor_view* tensor, request_view* out) noexcept nogil:
    cdef int status = reserve_piece(out)
    if status != DECODE_OK:
        return status
    out.pieces[out.n_pieces] = contents
    out.n_pieces += 1
    tensor.has_contents = True
    return count_contents(contents, INPUT_DEPTH - 1, tensor.counts, &tensor.string_bytes)


cdef int decode_requested_output(bytes_view message, request_view* out) noexcept nogil:
    cdef cursor place = open_cursor(message)
    cdef field item
    cdef bytes_view name = EMPTY
    cdef int status = reserve_output(out)
    while place.at != place.end and status == DECODE_OK:
        if read_field(&place, &item, INPUT_DEPTH) != DECODE_OK:
            return DECODE_MALFORMED
        if item.tag == OUTPUT_NAME:
            status = take_text(item.span, &name)
        elif item.tag == OUTPUT_PARAMETERS:
            status = decode_parameter(item.span, OWNER_FIRST_OUTPUT - out.n_outputs, out)
    if status == DECODE_OK:
        out.outputs[out.n_outputs].name = name
        out.n_outputs += 1
    return status


cdef int decode_parameter(bytes_view entry, int32_t owner, request_view* out) noexcept nogil:
    """Add one map entry; upb sets an entry aside that holds any unknown field, so it is checked and left out here too."""
    cdef cursor place = open_cursor(entry)
    cdef field item
    cdef parameter_view parameter
    cdef int depth = INPUT_DEPTH if owner == OWNER_REQUEST else INPUT_DEPTH - 1
    cdef int status = DECODE_OK
    cdef bint unknown = False
    memset(&parameter, 0, sizeof(parameter_view))
    parameter.owner = owner
    parameter.key = EMPTY
    while place.at != place.end and status == DECODE_OK:
        if read_field(&place, &item, depth) != DECODE_OK:
            return DECODE_MALFORMED
        if item.tag == ENTRY_KEY:
            status = take_text(item.span, &parameter.key)
        elif item.tag == ENTRY_VALUE:
            status = decode_parameter_value(item.span, depth - 1, &parameter)
        else:
            unknown = True
    return status if status != DECODE_OK or unknown else add_parameter(&parameter, out)


cdef int add_parameter(const parameter_view* parameter, request_view* out) noexcept nogil:
    cdef int status = reserve_parameter(out)
    if status == DECODE_OK:
        out.parameters[out.n_parameters] = parameter[0]
        out.n_parameters += 1
    return status


cdef int decode_parameter_value(bytes_view message, int depth, parameter_view* out) noexcept nogil:
    """Merge one InferParameter into `out`: the last case of the oneof stands."""
    cdef cursor place = open_cursor(message)
    cdef field item
    while place.at != place.end:
        if read_field(&place, &item, depth) != DECODE_OK:
            return DECODE_MALFORMED
        if item.tag == VALUE_BOOL:
            out.value.as_bool = item.bits != 0
        elif item.tag == VALUE_INT64 or item.tag == VALUE_UINT64:
            out.value.as_uint64 = item.bits
        elif item.tag == VALUE_DOUBLE:
            memcpy(&out.value.as_double, &item.bits, sizeof(double))
        elif item.tag == VALUE_STRING:
            if take_text(item.span, &out.value.as_string) != DECODE_OK:
                return DECODE_MALFORMED
        else:
            continue
        out.kind = item.tag >> 3
    return DECODE_OK


cdef const parameter_view* find_parameter(const request_view* request, int32_t owner, const char* key,
                                          size_t size) noexcept nogil:
    """Return the parameter of that owner and key that stands, the last one given, or NULL."""
    cdef int32_t index
    cdef const parameter_view* candidate
    for index in range(request.n_parameters - 1, -1, -1):
        candidate = &request.parameters[index]
        if candidate.owner == owner and candidate.key.size == size and memcmp(candidate.key.data, key, size) == 0:
            return candidate
    return NULL


cdef int64_t contents_bytes(const request_view* request, int32_t position, int datatype) noexcept nogil:
    """Return the size of an input's typed elements in raw layout, -1 for a datatype without a typed form."""
    cdef const tensor_view* tensor = &request.inputs[position]
    cdef int carrier = contents_field(datatype)
    if carrier == 0:
        return -1
    if datatype == DT_BYTES:
        return <int64_t> (tensor.string_bytes + sizeof(uint32_t) * tensor.counts[carrier])
    return <int64_t> (tensor.counts[carrier] * datatype_size(datatype))


cdef int read_contents(const request_view* request, int32_t position, int datatype, uint8_t* dst) noexcept nogil:
    """Write an input's typed elements in raw layout: contents_bytes of them, or CONTENTS_RANGE."""
    cdef const tensor_view* tensor = &request.inputs[position]
    cdef int32_t index
    cdef int status = DECODE_OK
    for index in range(tensor.first_piece, tensor.first_piece + tensor.n_pieces):
        status = copy_contents(request.pieces[index], datatype, &dst)
        if status != DECODE_OK:
            break
    return status
