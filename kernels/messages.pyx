"""The codec as Python sees it: whole messages as plain values, for tests, benchmarks and tools.

Serving never comes here: the engine works on the views of kernels.codec and makes no Python object of a tensor.
"""

from collections import namedtuple

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from kernels cimport codec
from kernels.codec cimport (
    CONTENTS_FIELDS, DECODE_LIMIT, DECODE_NO_MEMORY, DECODE_OK, MAX_ENTRIES, OWNER_FIRST_OUTPUT, OWNER_REQUEST,
    PARAMETER_BOOL, PARAMETER_DOUBLE, PARAMETER_INT64, PARAMETER_STRING, PARAMETER_UINT64,
    bytes_view, clear_request_view, contents_bytes, find_parameter, free_request_view, init_request_view, output_view,
    parameter_view, read_contents, request_view, response_size, response_view, tensor_view,
)
from kernels.datatype cimport DT_UNKNOWN, find_datatype
from kernels.sync cimport monotonic_ns

Parameter = namedtuple("Parameter", "kind value")
Parameter.__doc__ = """An InferParameter: name of the oneof's case ("" when unset) and its value (None when unset)."""

DecodedInput = namedtuple("DecodedInput", "name datatype shape parameters counts content")
DecodedInput.__doc__ = """An input: `counts` are the elements in the fields 1 to 8 of its contents, None without contents.

`content` is the raw layout of the typed elements; None without contents, for a datatype that only travels raw, and
when a value does not fit the datatype.
"""

DecodedOutput = namedtuple("DecodedOutput", "name parameters")
DecodedOutput.__doc__ = """A requested output."""

DecodedRequest = namedtuple("DecodedRequest", "model_name model_version id parameters inputs outputs raw_input_contents")
DecodedRequest.__doc__ = """A ModelInferRequest; parameters are dicts of Parameter, inputs, outputs and raw contents are tuples."""

ENTRIES_LIMIT = MAX_ENTRIES


class DecodeError(ValueError):
    """The bytes are no ModelInferRequest, or one with more than ENTRIES_LIMIT entries of a kind."""


def decode_request(bytes message not None):
    """Decode a ModelInferRequest.

    Returns
    -------
    DecodedRequest

    Raises
    ------
    DecodeError
        Protobuf's own parser would refuse the message too, or a limit is exceeded.
    """
    cdef request_view view
    cdef size_t size = len(message)
    cdef int status
    # A bytes object ends in a NUL, which would hide a read past the end from the sanitizers; this copy does not.
    cdef uint8_t* data = <uint8_t*> malloc(size)
    status = init_request_view(&view)
    try:
        if data == NULL and size != 0:
            raise MemoryError
        check_decoded(status)
        memcpy(data, <const char*> message, size)
        with nogil:
            status = codec.decode_request(data, size, &view)
        check_decoded(status)
        return make_request(&view)
    finally:
        free_request_view(&view)
        free(data)


cdef int check_decoded(int status) except -1:
    if status == DECODE_NO_MEMORY:
        raise MemoryError("no memory for the views of a request")
    if status == DECODE_LIMIT:
        raise DecodeError(f"the message is over 2 GiB or has more than {ENTRIES_LIMIT} entries of one kind")
    if status != DECODE_OK:
        raise DecodeError("the message is no valid ModelInferRequest")
    return 0


cdef bytes make_bytes(bytes_view view):
    return (<const char*> view.data)[:view.size]


cdef str make_text(bytes_view view):
    return make_bytes(view).decode()


cdef object make_request(const request_view* view):
    return DecodedRequest(
        make_text(view.model_name),
        make_text(view.model_version),
        make_text(view.id),
        make_parameters(view, OWNER_REQUEST),
        tuple([make_input(view, index) for index in range(view.n_inputs)]),
        tuple([make_output(view, index) for index in range(view.n_outputs)]),
        tuple([make_bytes(view.raw[index]) for index in range(view.n_raw)]),
    )


cdef object make_input(const request_view* view, int32_t index):
    cdef const tensor_view* tensor = &view.inputs[index]
    counts = tuple([tensor.counts[number] for number in range(1, CONTENTS_FIELDS)]) if tensor.has_contents else None
    return DecodedInput(
        make_text(tensor.name),
        make_text(tensor.datatype_name),
        tuple([tensor.shape[axis] for axis in range(tensor.rank)]),
        make_parameters(view, index),
        counts,
        make_content(view, index) if tensor.has_contents else None,
    )


cdef object make_content(const request_view* view, int32_t index):
    cdef int datatype = view.inputs[index].datatype
    cdef int64_t size = contents_bytes(view, index, datatype)
    if size < 0:
        return None
    content = bytearray(size)
    cdef uint8_t* dst = content
    return bytes(content) if read_contents(view, index, datatype, dst) == DECODE_OK else None


cdef object make_output(const request_view* view, int32_t index):
    return DecodedOutput(make_text(view.outputs[index].name), make_parameters(view, OWNER_FIRST_OUTPUT - index))


cdef dict make_parameters(const request_view* view, int32_t owner):
    """Look every key up again, so that what tests see is what find_parameter finds."""
    cdef bytes_view key
    cdef int32_t index
    made = {}
    for index in range(view.n_parameters):
        if view.parameters[index].owner == owner:
            key = view.parameters[index].key
            made[make_text(key)] = make_parameter(find_parameter(view, owner, <const char*> key.data, key.size))
    return made


cdef object make_parameter(const parameter_view* parameter):
    if parameter.kind == PARAMETER_BOOL:
        return Parameter("bool_param", bool(parameter.value.as_bool))
    if parameter.kind == PARAMETER_INT64:
        return Parameter("int64_param", parameter.value.as_int64)
    if parameter.kind == PARAMETER_STRING:
        return Parameter("string_param", make_text(parameter.value.as_string))
    if parameter.kind == PARAMETER_DOUBLE:
        return Parameter("double_param", parameter.value.as_double)
    if parameter.kind == PARAMETER_UINT64:
        return Parameter("uint64_param", parameter.value.as_uint64)
    return Parameter("", None)


def encode_response(*, str model_name not None, str model_version not None, str id not None, outputs):
    """Encode a ModelInferResponse.

    Parameters
    ----------
    outputs : sequence of (str, str, sequence of int, bytes)
        Name, datatype, shape and raw content of each output; the sizes are not checked against each other.

    Raises
    ------
    ValueError
        A datatype is unknown.
    """
    cdef response_view view
    cdef OutputViews views = OutputViews(outputs)
    encoded = [model_name.encode(), model_version.encode(), id.encode()]
    view.model_name = view_bytes(encoded[0])
    view.model_version = view_bytes(encoded[1])
    view.id = view_bytes(encoded[2])
    view.parameters = NULL
    view.n_parameters = 0
    view.outputs = views.items
    view.n_outputs = views.count
    message = bytearray(response_size(&view))
    cdef uint8_t* dst = message
    cdef size_t written
    with nogil:
        written = codec.encode_response(&view, dst)
    assert written == len(message)
    return bytes(message)


cdef bytes_view view_bytes(bytes value):
    """View a bytes object that the caller keeps alive."""
    cdef bytes_view view
    view.data = value
    view.size = len(value)
    return view


@cython.final
cdef class OutputViews:
    """The C form of a sequence of outputs, for the time of one call."""

    cdef output_view* items  # owned; their shapes too
    cdef int32_t count
    cdef list kept           # the bytes objects that the views point into

    def __cinit__(self, outputs):
        outputs = list(outputs)
        self.kept = []
        self.items = <output_view*> calloc(max(len(outputs), 1), sizeof(output_view))
        if self.items == NULL:
            raise MemoryError
        for name, datatype, shape, content in outputs:
            self.add(name.encode(), datatype.encode(), tuple(shape), content)

    def __dealloc__(self):
        cdef int32_t index
        if self.items == NULL:
            return
        for index in range(self.count):
            free(<void*> self.items[index].shape)
        free(self.items)

    cdef int add(self, bytes name, bytes datatype, tuple shape, bytes content) except -1:
        cdef output_view* item = &self.items[self.count]
        cdef int64_t* dims
        item.datatype = find_datatype(datatype, len(datatype))
        if item.datatype == DT_UNKNOWN:
            raise ValueError(f"{datatype.decode()!r} is no datatype")
        dims = <int64_t*> malloc(max(len(shape), 1) * sizeof(int64_t))
        if dims == NULL:
            raise MemoryError
        item.shape = dims
        self.count += 1
        for item.rank, dim in enumerate(shape):
            dims[item.rank] = dim
        item.rank = len(shape)
        item.name = view_bytes(name)
        item.content = view_bytes(content)
        self.kept += [name, content]
        return 0


def measure_codec(bytes message not None, int64_t turns):
    """Decode a request and encode a reply to it, over and over, without the GIL and with one pooled view.

    A turn is what the engine asks of the codec for one request: decode_request; a reply with the request's model name,
    version and id and one FP32 output of shape [1, 4]; response_size and encode_response into a waiting buffer;
    clear_request_view. Neither the check against a model nor the gather is part of it.

    Returns
    -------
    float
        Nanoseconds per turn.

    Raises
    ------
    DecodeError
        As decode_request does.
    """
    cdef OutputViews views = OutputViews([("output", "FP32", (1, 4), bytes(16))])
    cdef request_view view
    cdef response_view reply
    cdef const uint8_t* data = message
    cdef size_t size = len(message)
    cdef int64_t turn, started
    cdef int status = DECODE_OK
    room = bytearray(size + 1024)
    cdef uint8_t* dst = room
    reply.parameters = NULL
    reply.n_parameters = 0
    reply.outputs = views.items
    reply.n_outputs = views.count
    check_decoded(init_request_view(&view))
    with nogil:
        started = monotonic_ns()
        for turn in range(turns):
            status = answer_request(data, size, &view, &reply, dst)
            if status != DECODE_OK:
                break
    free_request_view(&view)
    check_decoded(status)
    return <double> (monotonic_ns() - started) / turns


cdef int answer_request(const uint8_t* data, size_t size, request_view* view, response_view* reply,
                        uint8_t* dst) noexcept nogil:
    """One turn of measure_codec; `dst` has room for the message's own strings and one small output."""
    cdef int status = codec.decode_request(data, size, view)
    reply.model_name = view.model_name
    reply.model_version = view.model_version
    reply.id = view.id
    if status == DECODE_OK and response_size(reply) <= size + 1024:
        codec.encode_response(reply, dst)
    clear_request_view(view)
    return status
