"""A large batch of one: the session reads it in its message, where that is aligned, and writes into the reply."""

import numpy as np
import onnx_models
import pytest
from bound_service import SERVICE, WAIT_S, BoundService, infer_by
from datatypes import DTYPES
from engine_calls import infer
from inference_messages import decode_reply, encode_request
from ways import every_way

from service.pb.open_inference_pb2 import ModelStreamInferResponse

COLUMNS = 5000
# More than an element has bytes, and than malloc aligns to.
SHIFTS = range(17)


def numbers(datatype, shape):
    """Numbers of any bits but those of a NaN, which does not equal itself."""
    random = np.random.default_rng(7)
    return random.integers(0, 2 if datatype == "BOOL" else 100, shape).astype(DTYPES[datatype])


def load_identity(load, datatype, *, shape, **options):
    """Load a model that returns what it is given."""
    load(onnx_models.identity(onnx_models.ELEMENT_TYPES[datatype], shape), "same", **options)


def call(channel, message):
    """The reply to a message, as a list."""
    return [infer_by(channel)(message, timeout=WAIT_S)]


def call_stream(channel, message):
    """The replies to a message that is sent several times on one stream."""
    exchange = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer", response_deserializer=ModelStreamInferResponse.FromString
    )
    responses = list(exchange(iter([message] * 3), timeout=WAIT_S))
    assert [response.error_message for response in responses] == [""] * 3
    return [response.infer_response.SerializeToString() for response in responses]


@every_way
@pytest.mark.parametrize("options", [{"max_batch_size": 0}, {"max_batch_size": 4}], ids=["fixed", "batched"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_tensor_comes_back_wherever_it_lies(engine, load, datatype, options):
    """At every distance from where its elements would be aligned; the id before it moves it."""
    shape = ("batch" if options["max_batch_size"] else 1, COLUMNS)
    load_identity(load, datatype, shape=shape, **options)
    for shift in SHIFTS:
        given = numbers(datatype, (1, COLUMNS))
        output = infer(engine, "same", {"input": given}, request_id="i" * shift)["output"]
        np.testing.assert_array_equal(output, given)


@every_way
@pytest.mark.parametrize("send", [call, call_stream])
def test_tensors_come_back_over_the_wire(engine, load, send):
    """Messages of every length, on the transport, which chooses where they lie."""
    load_identity(load, "FP64", shape=("batch", "columns"), max_batch_size=4)
    with BoundService(engine) as service, service.connect() as channel:
        for shift in SHIFTS:
            given = numbers("FP64", (1, COLUMNS + shift))
            message = encode_request("same", {"input": given}, request_id="i" * shift)
            for reply in send(channel, message):
                np.testing.assert_array_equal(decode_reply(reply)["output"], given)


@every_way
def test_bool_of_any_byte_is_read_as_one(engine, load):
    """Such a tensor is copied, since kernels take the byte for a C++ bool."""
    load_identity(load, "BOOL", shape=(1, COLUMNS), max_batch_size=0)
    message = encode_request("same", {"input": np.ones((1, COLUMNS), bool)})
    assert message.count(b"\x01" * COLUMNS) == 1
    output = decode_reply(engine.infer(message.replace(b"\x01" * COLUMNS, b"\x07" * COLUMNS)))["output"]
    assert output.tobytes() == b"\x01" * COLUMNS


@every_way
@pytest.mark.parametrize("outputs", [(), ("difference",), ("difference", "sum")])
def test_several_outputs_come_in_the_order_asked_for(engine, load, outputs):
    """Only one can lie at the end of a reply."""
    load(onnx_models.add_and_subtract(COLUMNS), "both", max_batch_size=4)
    a, b = numbers("FP32", (1, COLUMNS)), np.ones((1, COLUMNS), np.float32)
    expected = {"sum": a + b, "difference": a - b}
    given = infer(engine, "both", {"a": a, "b": b}, outputs=outputs)
    assert list(given) == list(outputs or expected)
    for name, output in given.items():
        np.testing.assert_array_equal(output, expected[name])


@every_way
def test_output_of_other_shape_than_declared_is_what_the_model_made(engine, load):
    """The reply was begun for the shape that the file promises."""
    load(onnx_models.shorter_than_declared(COLUMNS), "shorter", max_batch_size=0)
    for _ in range(3):
        given = numbers("FP32", (1, COLUMNS))
        output = infer(engine, "shorter", {"input": given})["output"]
        np.testing.assert_array_equal(output, given[:, : COLUMNS // 2])


@every_way
def test_large_and_small_alternate(engine, load):
    """What one run left does not shine through the next."""
    load_identity(load, "FP32", shape=("batch", "columns"), max_batch_size=4)
    for columns in (3, COLUMNS, 4, 2 * COLUMNS, COLUMNS, 1):
        given = numbers("FP32", (1, columns)) + columns
        np.testing.assert_array_equal(infer(engine, "same", {"input": given})["output"], given)
