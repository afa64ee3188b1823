"""The areas of Triton's published test suites that are a matter of inference: datatypes, shapes, strings, no numbers.

test_triton_areas runs them in another process; the environment's ADDRESS says whom to call.
"""

import functools
import itertools
import os
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from datatypes import DTYPES
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.end_to_end.triton_calls import make_input

ADDRESS = os.environ["ADDRESS"]
TIMEOUT_S = 30
EVERY_DTYPE = DTYPES | {"BYTES": np.object_}
# The field of `contents` that carries a datatype, and its extremes; FP16 and BF16 have none.
FIELDS = {
    "BOOL": ("bool_contents", [False, True]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [-np.inf, 1e-45]),
    "FP64": ("fp64_contents", [-np.inf, 5e-324]),
    "BYTES": ("bytes_contents", [b"", b"\0a\xff"]),
}
# L0_infer_variable: every dimension but the batch is open.
SHAPES = [(1, 1, 1), (2, 3, 4), (8, 1, 7), (3, 100, 1)]
# L0_infer_zero: no elements at all, in every place where the model leaves that open.
EMPTY_SHAPES = [(1, 0, 3), (2, 3, 0), (8, 0, 0)]
# Of the outputs of `simple`: none, one, and both, in every order.
ORDERS = [names for count in range(3) for names in itertools.permutations(("OUTPUT0", "OUTPUT1"), count)]
STRINGS = ["", "\0", "a\0b\0", "grüße", "日本語", "🜲" * 9, "x" * 70_000, " \r\n\t"]


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


@pytest.fixture(scope="module")
def stub():
    """Its stubs, for messages that it does not write."""
    with grpc.insecure_channel(ADDRESS, [("grpc.max_receive_message_length", -1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def make_values(datatype, shape):
    """As many different values as there are."""
    count = int(np.prod(shape, dtype=np.int64))
    if datatype == "BYTES":
        flat = np.empty(count, np.object_)
        flat[:] = [f"{place}\0".encode() for place in range(count)]
        return flat.reshape(shape)
    return (np.arange(count) % 120).astype(EVERY_DTYPE[datatype]).reshape(shape)


def read_output(result, name="output"):
    """An output of any size; the client gives an empty one of strings no shape."""
    output = result.get_output(name)
    return result.as_numpy(name).reshape(tuple(output.shape))


@pytest.mark.parametrize("shape", SHAPES + EMPTY_SHAPES)
@pytest.mark.parametrize("datatype", EVERY_DTYPE)
def test_tensor_of_any_size_comes_back(client, datatype, shape):
    """Every datatype in every shape that the model's open dimensions allow."""
    values = make_values(datatype, shape)
    given = read_output(client.infer(f"variable_{datatype}", [make_input(values, datatype)]))
    assert (given.shape, given.dtype) == (shape, values.dtype)
    assert given.tobytes() == values.tobytes() if datatype != "BYTES" else given.tolist() == values.tolist()


@pytest.mark.parametrize("size", [0, 1, 1000])
@pytest.mark.parametrize("datatype", EVERY_DTYPE)
def test_tensor_of_a_model_without_batches_comes_back(client, datatype, size):
    """Rank 1, also with nothing in it."""
    values = make_values(datatype, (size,))
    given = read_output(client.infer(f"zero_{datatype}", [make_input(values, datatype)]))
    assert given.tolist() == values.tolist()


@pytest.mark.parametrize("datatype", EVERY_DTYPE)
def test_scalar_comes_back(client, datatype):
    """L0_scalar_io: rank 0."""
    value = np.array(b"a\0" if datatype == "BYTES" else 1, EVERY_DTYPE[datatype])
    result = client.infer(f"scalar_{datatype}", [make_input(value, datatype)])
    assert list(result.get_output("output").shape) == []
    assert read_output(result).item() == value.item()
    assert client.get_model_metadata(f"scalar_{datatype}").inputs[0].shape == []


@pytest.mark.parametrize("datatype", EVERY_DTYPE)
def test_scalar_of_each_row_comes_back(client, datatype):
    """L0_infer_reshape: callers see [1], the model nothing but the batch."""
    values = make_values(datatype, (5, 1))
    result = client.infer(f"rows_{datatype}", [make_input(values, datatype)])
    assert read_output(result).tolist() == values.tolist()
    with pytest.raises(InferenceServerException, match="wrong rank"):
        client.infer(f"rows_{datatype}", [make_input(make_values(datatype, (5,)), datatype)])


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_reshaped_dimension_may_be_open(client, rows):
    """As many pairs as there are."""
    values = np.arange(4 * rows, dtype=np.float32).reshape(2, rows, 2)
    given = read_output(client.infer("pairs", [make_input(values, "FP32")]))
    assert (given.shape, given.tobytes()) == ((2, rows, 1, 2), values.tobytes())


@pytest.mark.parametrize("datatype", ["INT32", "FP16", "BYTES"])
def test_requests_of_different_shapes_at_a_time_get_their_own(client, datatype):
    """L0_batcher: those of one shape may be run together, and others never."""
    answers = queue.SimpleQueue()
    for nonce in range(100):
        values = make_values(datatype, SHAPES[nonce % len(SHAPES)])[..., :: 1 if nonce % 2 else -1].copy()
        call_back = functools.partial(lambda sent, result, error: answers.put((sent, result, error)), values)
        client.async_infer(f"variable_{datatype}", [make_input(values, datatype)], call_back)
    for _ in range(100):
        sent, result, error = answers.get(timeout=TIMEOUT_S)
        assert error is None
        assert read_output(result).tolist() == sent.tolist()


def make_typed(datatype, values, shape, model="zero"):
    """A request whose values are in `contents`."""
    request = service_pb2.ModelInferRequest(model_name=f"{model}_{datatype}", id=f"typed {datatype}")
    tensor = request.inputs.add(name="input", datatype=datatype, shape=shape)
    getattr(tensor.contents, FIELDS[datatype][0]).extend(values)
    return request


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_values_are_answered_raw(stub, datatype):
    """Its extremes, as Triton answers: in raw_output_contents, and nothing in contents."""
    values = FIELDS[datatype][1]
    response = stub.ModelInfer(make_typed(datatype, values, [len(values)]), timeout=TIMEOUT_S)
    assert not response.outputs[0].HasField("contents")
    assert len(response.raw_output_contents) == 1
    assert triton.InferResult(response).as_numpy("output").tolist() == np.array(values, EVERY_DTYPE[datatype]).tolist()
    assert (response.id, response.outputs[0].datatype) == (f"typed {datatype}", datatype)


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_values_may_be_none_or_one(stub, datatype):
    """An empty tensor, and a scalar."""
    response = stub.ModelInfer(make_typed(datatype, [], [0]), timeout=TIMEOUT_S)
    assert (list(response.outputs[0].shape), list(response.raw_output_contents)) == ([0], [b""])
    values = FIELDS[datatype][1][1:]
    response = stub.ModelInfer(make_typed(datatype, values, [], model="scalar"), timeout=TIMEOUT_S)
    assert list(response.outputs[0].shape) == []
    assert triton.InferResult(response).as_numpy("output").item() == np.array(values, EVERY_DTYPE[datatype]).item()


def test_strings_keep_every_byte(client):
    """L0_string_io and L0_nullchar_string: text of any kind, as text and as bytes."""
    encoded = [text.encode() for text in STRINGS]
    fixed = np.array([b"\x00\x01\x02\x03"] * 16, dtype=np.bytes_)
    for values in (np.array(encoded, dtype=object), np.array(STRINGS, dtype=object), fixed):
        expected = fixed.tolist() if values is fixed else encoded
        assert client.infer("zero_BYTES", [make_input(values, "BYTES")]).as_numpy("output").tolist() == expected


def test_numbers_that_are_none_are_made_and_kept(client):
    """L0_nan_inf: what a division by nothing gives, beside a row that it does not touch."""
    numbers = np.array([[1, -1, 0], [2, 4, 8]], np.float32)
    divisors = np.array([[0, 0, 0], [2, 2, 2]], np.float32)
    inputs = [make_input(numbers, "FP32", "a"), make_input(divisors, "FP32", "b")]
    given = client.infer("divider", inputs).as_numpy("output")
    np.testing.assert_array_equal(given, [[np.inf, -np.inf, np.nan], [1, 2, 4]])


@pytest.mark.parametrize("names", ORDERS)
def test_outputs_are_those_asked_for_in_their_order(client, names):
    """None means all, in the model's order."""
    inputs = [make_input(np.full((1, 16), value, np.int32), "INT32", f"INPUT{value}") for value in range(2)]
    result = client.infer("simple", inputs, outputs=[triton.InferRequestedOutput(name) for name in names])
    response = result.get_response()
    assert tuple(output.name for output in response.outputs) == (names or ("OUTPUT0", "OUTPUT1"))
    assert len(response.raw_output_contents) == len(response.outputs)
    for name in names:
        assert set(result.as_numpy(name).flat) == {1 if name == "OUTPUT0" else -1}


def test_output_that_is_asked_for_twice_is_refused(client):
    """Triton gives it once."""
    values = make_input(np.zeros(1, np.float32), "FP32")
    with pytest.raises(InferenceServerException, match="output 'output' is requested twice") as raised:
        client.infer("zero_FP32", [values], outputs=[triton.InferRequestedOutput("output")] * 2)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("name", ["triton_enable_empty_final_response", "triton_anything"])
def test_parameters_of_tritons_own_change_nothing(stub, name):
    """Its client refuses to send them, and it refuses those that it does not know."""
    request = make_typed("FP32", [1, 2], [2])
    request.parameters[name].bool_param = True
    assert triton.InferResult(stub.ModelInfer(request, timeout=TIMEOUT_S)).as_numpy("output").tolist() == [1, 2]


@pytest.mark.parametrize(("given", "missing"), [((), "INPUT0"), (("INPUT0",), "INPUT1"), (("INPUT1",), "INPUT0")])
def test_input_that_is_missing_is_named(client, given, missing):
    """L0_input_validation."""
    inputs = [make_input(np.zeros((1, 16), np.int32), "INT32", name) for name in given]
    with pytest.raises(InferenceServerException, match=f"input '{missing}' is missing") as raised:
        client.infer("simple", inputs)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("classes", [1, 5, 8, 100])
def test_classes_are_as_many_as_asked_for_and_there_are(client, classes):
    """L0_parameters: of ones, each of which is as large as the others."""
    output = triton.InferRequestedOutput("output", class_count=classes)
    result = client.infer("variable_FP32", [make_input(np.ones((2, 1, 8), np.float32), "FP32")], outputs=[output])
    assert result.get_output("output").datatype == "BYTES"
    expected = [f"1.000000:{index}".encode() for index in range(min(classes, 8))]
    assert result.as_numpy("output").tolist() == [expected] * 2


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "BF16", "BYTES"])
def test_classes_of_what_has_no_order_are_refused(client, datatype):
    """By the output's name and datatype."""
    output = triton.InferRequestedOutput("output", class_count=1)
    values = make_input(make_values(datatype, (4,)), datatype)
    with pytest.raises(InferenceServerException, match=f"output 'output' is {datatype}") as raised:
        client.infer(f"zero_{datatype}", [values], outputs=[output])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("request_id", ["", "1", "ü" * 100, "a b/c\t", "x" * 10_000])
def test_id_comes_back_as_it_was(client, request_id):
    """Any text."""
    values = make_input(np.zeros(1, np.float32), "FP32")
    assert client.infer("zero_FP32", [values], request_id=request_id).get_response().id == request_id


@pytest.mark.parametrize("value", ["text", 7, True, 0.5], ids=["text", "int", "bool", "float"])
def test_parameters_of_ones_own_are_taken_and_not_echoed(client, value):
    """L0_parameters: of every kind; as with Triton's ONNX Runtime backend they change nothing."""
    values = make_input(np.ones(1, np.float32), "FP32")
    result = client.infer("zero_FP32", [values], parameters={"one of my own": value}, headers={"my-header": "1"})
    assert result.as_numpy("output").tolist() == [1]
    assert not result.get_response().parameters
