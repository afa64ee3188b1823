"""Python twins of the codec and of batch assembly, made of protobuf and NumPy; for tests and benchmarks only.

The message classes are parameters, since nothing in kernels imports service. Both take whatever protobuf takes: the
limits of the compiled codec are its own.
"""

import struct

import numpy as np
from google.protobuf.message import DecodeError as ProtobufDecodeError

from kernels.datatype import DATATYPES
from kernels.messages import DecodedInput, DecodedOutput, DecodedRequest, DecodeError, Parameter

CONTENTS_FIELDS = (
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
)
DTYPES = {row.name: np.dtype(row.dtype) for row in DATATYPES}
CARRIERS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def decode_request(message, request_type):
    """Decode a ModelInferRequest with protobuf; the twin of kernels.messages.decode_request."""
    try:
        request = request_type.FromString(message)
    except ProtobufDecodeError as error:
        raise DecodeError(str(error)) from error
    return DecodedRequest(
        request.model_name,
        request.model_version,
        request.id,
        _decode_parameters(request.parameters),
        tuple(_decode_input(tensor) for tensor in request.inputs),
        tuple(DecodedOutput(output.name, _decode_parameters(output.parameters)) for output in request.outputs),
        tuple(request.raw_input_contents),
    )


def _decode_parameters(parameters):
    return {key: _decode_parameter(parameter) for key, parameter in parameters.items()}


def _decode_parameter(parameter):
    kind = parameter.WhichOneof("parameter_choice")
    return Parameter("", None) if kind is None else Parameter(kind, getattr(parameter, kind))


def _decode_input(tensor):
    counts = content = None
    if tensor.HasField("contents"):
        counts = tuple(len(getattr(tensor.contents, field)) for field in CONTENTS_FIELDS)
        content = lay_out_contents(tensor.contents, tensor.datatype)
    parameters = _decode_parameters(tensor.parameters)
    return DecodedInput(tensor.name, tensor.datatype, tuple(tensor.shape), parameters, counts, content)


def lay_out_contents(contents, datatype):
    """Return typed elements in raw layout; None for a datatype that only travels raw or when a value does not fit."""
    field = CARRIERS.get(datatype)
    if field is None:
        return None
    elements = getattr(contents, field)
    if datatype == "BYTES":
        return join_strings(elements)
    if datatype in ("FP32", "FP64"):
        return _copy_floats(contents, field, len(elements) * DTYPES[datatype].itemsize)
    wide = np.array(elements, dtype=np.uint64 if datatype == "UINT64" else np.int64)
    narrow = wide.astype(DTYPES[datatype])
    return narrow.tobytes() if (narrow == wide).all() else None


def _copy_floats(contents, field, size):
    """Take the bits from protobuf's own encoding: as Python floats, signalling NaNs would turn quiet."""
    alone = type(contents)()
    alone.CopyFrom(contents)
    alone.DiscardUnknownFields()
    for other in CONTENTS_FIELDS:
        if other != field:
            alone.ClearField(other)
    return alone.SerializeToString()[-size:] if size else b""


def encode_response(response_type, *, model_name, model_version, id, outputs):
    """Encode a ModelInferResponse with protobuf; the twin of kernels.messages.encode_response."""
    response = response_type(model_name=model_name, model_version=model_version, id=id)
    for name, datatype, shape, content, *place in outputs:
        if datatype not in DTYPES:
            raise ValueError(f"{datatype!r} is no datatype")
        output = response.outputs.add(name=name, datatype=datatype, shape=shape)
        for region, offset, size in place:
            output.parameters["shared_memory_region"].string_param = region
            output.parameters["shared_memory_byte_size"].int64_param = size
            if offset:
                output.parameters["shared_memory_offset"].int64_param = offset
        response.raw_output_contents.append(content)
    return response.SerializeToString(deterministic=True)


def join_strings(elements):
    """Return BYTES elements in raw layout: each with its length in front, 4 bytes little-endian."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def split_strings(content):
    """Return the elements of a BYTES tensor; ValueError when a length leads past the end."""
    elements, place = [], 0
    while place < len(content):
        if place + 4 > len(content):
            raise ValueError("the last length is cut off")
        (size,) = struct.unpack_from("<I", content, place)
        place += 4 + size
        if place > len(content):
            raise ValueError("the last element is cut off")
        elements.append(content[place - size : place])
    return elements


def to_array(content, datatype, shape):
    """Return a tensor's raw content as an array; dtype object for BYTES, uint16 for the bits of BF16."""
    if datatype != "BYTES":
        return np.frombuffer(content, dtype=DTYPES[datatype]).reshape(shape)
    array = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=object)
    array[:] = split_strings(content)
    return array.reshape(shape)


def to_content(array, datatype):
    """Return an array as a tensor's raw content."""
    if datatype == "BYTES":
        return join_strings(array.ravel())
    return np.ascontiguousarray(array, dtype=DTYPES[datatype]).tobytes()


def gather_rows(tensors):
    """Concatenate the requests' tensors along the first dimension, in the order of the requests."""
    return np.concatenate(tensors, axis=0)


def scatter_rows(batch, row_counts):
    """Split a batch along the first dimension into one array per request."""
    if sum(row_counts) != len(batch):
        raise ValueError(f"{sum(row_counts)} rows asked for, {len(batch)} in the batch")
    return np.split(batch, np.cumsum(row_counts)[:-1])


def join_elements(tensors):
    """Lay the elements of the requests' tensors end to end: what a model gets of a ragged input."""
    return np.concatenate([tensor.ravel() for tensor in tensors])


def make_batch_input(kind, shapes, dtype):
    """Return what a batch input of a kind has for requests whose source inputs have these shapes, the batch first."""
    counts = np.array([np.prod(shape, dtype=np.int64) for shape in shapes], dtype)
    if kind == "BATCH_ELEMENT_COUNT":
        return counts
    if kind == "BATCH_ACCUMULATED_ELEMENT_COUNT":
        return np.cumsum(counts, dtype=dtype)
    if kind == "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
        return np.concatenate([np.zeros(1, dtype), np.cumsum(counts, dtype=dtype)])
    if kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
        return np.zeros(int(max(counts)), dtype)
    rows = np.array([shape[1:] for shape in shapes for _ in range(shape[0])], dtype)
    return rows if kind == "BATCH_ITEM_SHAPE" else rows.ravel()


def pad_rows(tensors, filler, multiple=1):
    """Gather the requests' tensors into one whose rows are as long as the longest, rounded up, in every dimension."""
    longest = np.max([tensor.shape[1:] for tensor in tensors], axis=0)
    shape = [-(-size // multiple) * multiple for size in longest]
    padded = [np.full((len(tensor), *shape), filler, tensor.dtype) for tensor in tensors]
    for whole, tensor in zip(padded, tensors, strict=True):
        whole[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return np.concatenate(padded)
