"""Writes ModelInferRequests and reads ModelInferResponses with NumPy arrays, through protobuf: the tests' client."""

import struct

import numpy as np

from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from tests.datatypes import DATATYPES, DTYPES


def build_request(model, inputs, *, version="", request_id="", outputs=(), priority=None, timeout_us=None):
    """A ModelInferRequest with raw contents, parameters as tritonclient's; arrays of dtype object hold bytes."""
    request = ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, array in inputs.items():
        array = np.asarray(array)
        request.inputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
        request.raw_input_contents.append(write_raw(array))
    for name in outputs:
        request.outputs.add(name=name)
    if priority is not None:
        request.parameters["priority"].uint64_param = priority
    if timeout_us is not None:
        request.parameters["timeout"].int64_param = timeout_us
    return request


def build_turn(model, inputs, sequence, *, start=False, end=False, **options):
    """A request of a sequence, whose id is a number or a text; other options are those of build_request."""
    request = build_request(model, inputs, **options)
    if isinstance(sequence, str):
        request.parameters["sequence_id"].string_param = sequence
    else:
        request.parameters["sequence_id"].int64_param = sequence
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    return request


def encode_request(model, inputs, **options):
    """As build_request, on the wire."""
    return build_request(model, inputs, **options).SerializeToString()


def decode_reply(reply):
    """The outputs of a ModelInferResponse on the wire, as {name: array}, in the reply's order."""
    response = ModelInferResponse.FromString(reply)
    return {
        output.name: read_raw(content, output.datatype, tuple(output.shape))
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def write_raw(array):
    """An array in the protocol's raw layout."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(element)) + element for element in array.ravel())
    return array.tobytes()


def read_raw(content, datatype, shape):
    """An array from the protocol's raw layout."""
    if datatype != "BYTES":
        return np.frombuffer(content, DTYPES[datatype]).reshape(shape)
    elements = []
    while content:
        (size,) = struct.unpack_from("<I", content)
        elements.append(content[4 : 4 + size])
        content = content[4 + size :]
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)
