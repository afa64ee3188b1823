"""Requests that are wrong: each is told by status and text what was expected and given, and none harms another."""

import random

import grpc
import numpy as np
import pytest
from inference_messages import build_request

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import OK, find_wrong, make_request, run_load

TIMEOUT_S = 30.0
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INFER = "/inference.GRPCInferenceService/ModelInfer"
ROW = np.arange(4, dtype=np.int64).reshape(1, 4)
STRINGS = np.array([[b"a", b"b", b"c", b"d"]], dtype=object)


def adder(**changes):
    """A good request to `adder`, spoilt: of its input datatype, name, shape; its raw contents; model and version."""
    request = build_request("adder", {"input": changes.pop("rows", ROW)})
    for name, value in changes.items():
        if name == "raw":
            request.raw_input_contents[:] = value
        elif name == "shape":
            request.inputs[0].shape[:] = value
        elif name.startswith("model_"):
            setattr(request, name, value)
        else:
            setattr(request.inputs[0], name, value)
    return request


def typed(model, datatype, field, values, shape=(1, 4)):
    """A request whose values are in a field of the contents."""
    request = build_request(model, {"input": np.zeros(shape, np.int64)})
    del request.raw_input_contents[:]
    request.inputs[0].datatype = datatype
    getattr(request.inputs[0].contents, field).extend(values)
    return request


def both_contents():
    """Raw and typed."""
    request = adder()
    request.inputs[0].contents.int64_contents.extend([1, 2, 3, 4])
    return request


def duplicate_input():
    """The same input twice, its content too."""
    request = adder()
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    return request


def wide(shape):
    """A shape whose elements can be counted and whose bytes cannot."""
    request = build_request("wide", {"input": np.zeros((1, 1))})
    request.inputs[0].shape[:] = shape
    return request


def strings(content):
    """Raw content for 4 elements of BYTES."""
    request = build_request("identity_BYTES", {"input": STRINGS})
    request.raw_input_contents[0] = content
    return request


def sums(**inputs):
    """A request to a model of two inputs."""
    return build_request("sums", {name: np.zeros((rows, 3), np.float32) for name, rows in inputs.items()})


def with_wire_type(field, number, replacement):
    """A good request in which one field of the input came in a wire type that is not its own."""
    request = adder()
    request.inputs[0].ClearField(field)
    tensor = request.inputs[0].SerializeToString() + replacement
    del request.inputs[:]
    assert replacement[0] >> 3 == number
    return request.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor


MODEL_AS_NUMBER = adder(model_name="").SerializeToString() + b"\x08\x01"

NO_MODEL = "model_name is missing"
# A gateway, which has to know the model to choose a server, says so itself.
NO_MODEL_AT_GATEWAY = "model_name: expected the name of a model in the first message"

# What is wrong, and the words that say so.
BAD = {
    "empty message": (b"", NO_MODEL),
    "model_name of another wire type": (MODEL_AS_NUMBER, NO_MODEL),
    "name of another wire type": (with_wire_type("name", 1, b"\x08\x05"), "input '' is unknown; the model has 'input'"),
    "datatype of another wire type": (
        with_wire_type("datatype", 2, b"\x10\x05"),
        "input 'input' has datatype ''; expected INT64",
    ),
    "shape of another wire type": (
        with_wire_type("shape", 3, b"\x1d\1\0\0\0"),
        "input 'input' has the wrong rank: expected [-1,4], got []",
    ),
    "raw shorter": (adder(raw=[b"x" * 31]), "input 'input' has 31 bytes of raw content; expected 32"),
    "raw longer": (adder(raw=[b"x" * 33]), "input 'input' has 33 bytes of raw content; expected 32"),
    "raw empty": (adder(raw=[b""]), "input 'input' has 0 bytes of raw content; expected 32"),
    "raw missing": (adder(raw=[]), "input 'input' has 0 elements; expected 4 for its shape"),
    "raw extra": (adder(raw=[b"x" * 32, b""]), "one raw_input_contents entry for each of the 1 inputs, got 2"),
    "raw and typed": (both_contents(), "input 'input' has both raw_input_contents and contents"),
    "typed in another field": (
        typed("adder", "INT64", "int_contents", [1, 2, 3, 4]),
        "input 'input' has values in field 2 of contents; expected INT64 in field 3",
    ),
    "typed too few": (
        typed("adder", "INT64", "int64_contents", [1, 2]),
        "input 'input' has 2 elements; expected 4 for its shape",
    ),
    "typed beyond its datatype": (
        typed("identity_INT8", "INT8", "int_contents", [1, 2, 300, 4]),
        "input 'input' has a value in its contents that does not fit INT8",
    ),
    "typed FP16": (
        typed("identity_FP16", "FP16", "fp32_contents", [1, 2, 3, 4]),
        "input 'input' has a datatype that only raw_input_contents can carry",
    ),
    "shape negative": (adder(shape=[-1, 4]), "input 'input' has a negative dimension: expected [-1,4], got [-1,4]"),
    "shape of the least number": (adder(shape=[-(2**63), 4]), "has a negative dimension"),
    "shape beyond 2^63 elements": (
        adder(shape=[1 << 62, 4]),
        f"input 'input' has more elements than 63 bits can count: expected [-1,4], got [{1 << 62},4]",
    ),
    "shape beyond 2^63 bytes": (
        wide([1 << 31, 1 << 31]),
        "input 'input' has more bytes than 63 bits can count: expected [-1,-1], got [2147483648,2147483648]",
    ),
    "shape of terabytes": (
        wide([1 << 20, 1 << 20]),
        "input 'input' has 8 bytes of raw content; expected 8796093022208",
    ),
    "rank 0": (adder(shape=[]), "input 'input' has the wrong rank: expected [-1,4], got []"),
    "rank 1": (adder(shape=[4]), "input 'input' has the wrong rank: expected [-1,4], got [4]"),
    "rank 3": (adder(shape=[1, 1, 4]), "input 'input' has the wrong rank: expected [-1,4], got [1,1,4]"),
    "rank 10000": (adder(shape=[1] * 10000), "input 'input' has the wrong rank: expected [-1,4]"),
    "rank for a scalar": (
        build_request("scalar", {"input": np.zeros((1,), np.float32)}),
        "input 'input' has the wrong rank: expected [], got [1]",
    ),
    "no row": (adder(shape=[0, 4], raw=[b""]), "input 'input' has a batch of 0 rows: expected [-1,4], got [0,4]"),
    "fixed dimension": (
        adder(rows=np.zeros((1, 5), np.int64)),
        "input 'input' has the wrong shape: expected [-1,4], got [1,5]",
    ),
    "zero dimension": (adder(shape=[1, 0], raw=[b""]), "has the wrong shape: expected [-1,4], got [1,0]"),
    "batch over the maximum": (
        adder(rows=np.zeros((9, 4), np.int64)),
        "input 'input' has a batch of 9 rows; expected at most 8 (max_batch_size)",
    ),
    "batches that differ": (sums(a=1, b=2), "input 'b' has a batch of 2 rows, another input has 1"),
    "unknown input": (adder(name="imput"), "input 'imput' is unknown; the model has 'input'"),
    "unknown input of control bytes": (adder(name="a\0b\r\n"), "is unknown; the model has 'input'"),
    "missing input": (sums(a=1), "input 'b' is missing; got 1 of 2 inputs"),
    "no input": (build_request("adder", {}), "input 'input' is missing; got 0 of 1 inputs"),
    "duplicate input": (duplicate_input(), "input 'input' is given twice"),
    "wrong datatype": (adder(datatype="FP32"), "input 'input' has datatype 'FP32'; expected INT64"),
    "unknown datatype": (adder(datatype="INT65"), "input 'input' has datatype 'INT65'; expected INT64"),
    "no datatype": (adder(datatype=""), "input 'input' has datatype ''; expected INT64"),
    "unknown output": (
        build_request("adder", {"input": ROW}, outputs=["logits"]),
        "requested output 'logits' is unknown; the model has 'output'",
    ),
    "BYTES within a prefix": (
        strings(b"\1\0\0\0a\1\0"),
        "input 'input' has raw BYTES content that ends within a length",
    ),
    "BYTES beyond the end": (
        strings(b"\xff\xff\xff\xffa"),
        "input 'input' has a BYTES element of 4294967295 bytes where 1 are left",
    ),
    "BYTES too few": (strings(b"\1\0\0\0a"), "input 'input' has 1 elements; expected 4 for its shape"),
    "BYTES too many": (strings(bytes(20)), "input 'input' has 5 elements; expected 4 for its shape"),
}
# At the gateway it is the gateway that knows which models and versions there are.
BAD_NAMES = {
    "unknown model": (adder(model_name="letters"), NOT_FOUND, "Request for unknown model: 'letters' is not found"),
    "model that begins like another": (adder(model_name="adder\0x"), NOT_FOUND, "is not found"),
    "unknown version": (adder(model_version="3"), NOT_FOUND, "'adder' version 3 is not found"),
    "version of no such label": (adder(model_version="one"), NOT_FOUND, "'one': model 'adder' has no such label"),
    "version that is neither": (
        adder(model_version="+1"),
        INVALID,
        "failed to get model version from specified version string '+1': expected a positive number or a label",
    ),
    "version 0": (adder(model_version="0"), INVALID, "version string '0'"),
    "version below 0": (adder(model_version="-1"), INVALID, "version string '-1'"),
    "version of 19 digits": (adder(model_version="1" * 19), INVALID, "version string '1111111111111111111'"),
}


@pytest.fixture(params=["plain", "gateway"])
def target(request):
    """Directly, and through the gateway, which reads messages too."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def refuse(target):
    """Send a message that must be refused, then on the same connection a good one; returns status and text."""
    with target.connect() as channel:
        send = channel.unary_unary(INFER)
        stub = GRPCInferenceServiceStub(channel)

        def send_bad(message):
            message = message if isinstance(message, bytes) else message.SerializeToString()
            with pytest.raises(grpc.RpcError) as raised:
                send(message, timeout=TIMEOUT_S)
            assert find_wrong(stub.ModelInfer(make_request(5), timeout=TIMEOUT_S), 5) == ""
            return raised.value.code(), raised.value.details()

        yield send_bad


@pytest.fixture
def allowed(target):
    """Statuses for what is no message: the gateway may take its beginning for a model's name that it does not know."""
    return {INVALID, NOT_FOUND} if target.is_gateway else {INVALID}


@pytest.mark.parametrize("what", BAD)
def test_bad_request_is_refused_by_name_and_the_next_is_served(refuse, target, what):
    """INVALID_ARGUMENT, and the words that a developer needs."""
    message, words = BAD[what]
    if target.is_gateway and words == NO_MODEL:
        words = NO_MODEL_AT_GATEWAY
    code, text = refuse(message)
    assert code is INVALID
    assert words in text


@pytest.mark.parametrize("what", BAD_NAMES)
def test_request_for_what_is_not_there_is_refused(refuse, what, target):
    """A server tells what it does not have from what is no version; the gateway only knows that it is not there."""
    message, expected, words = BAD_NAMES[what]
    code, text = refuse(message)
    if target.is_gateway:
        assert code is NOT_FOUND
        assert "no such" in text
    else:
        assert code is expected
        assert words in text


def test_every_truncated_message_is_refused(refuse, allowed):
    """Wherever a message is cut: half a field is no message, and a lost field is a missing one."""
    message = make_request(3).SerializeToString()
    assert {refuse(message[:size])[0] for size in range(len(message))} - allowed == set()


def test_random_bytes_are_refused(refuse, allowed):
    """Whatever comes, from a fixed seed."""
    generator = random.Random(2)
    messages = [generator.randbytes(generator.choice([1, 2, 10, 100, 5000])) for _ in range(100)]
    assert {refuse(message)[0] for message in messages} - allowed == set()


def test_message_with_flipped_bytes_never_gets_anothers_answer(target):
    """A damaged request may still be one; then the answer is to what arrived, and every other is refused."""
    generator = random.Random(4)
    message = make_request(1).SerializeToString()
    with target.connect() as channel:
        send = channel.unary_unary(INFER)
        seen = set()
        for _ in range(300):
            damaged = bytearray(message)
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
            try:
                seen.add((grpc.StatusCode.OK, len(send(bytes(damaged), timeout=TIMEOUT_S)) > 32))
            except grpc.RpcError as error:
                seen.add((error.code(), bool(error.details())))
        assert seen == {(grpc.StatusCode.OK, True), (INVALID, True), (NOT_FOUND, True)}


def spoil_index(request):
    """Turn a good request to `adder` into one that its model refuses in the run."""
    return build_request("picker", {"index": np.full(4, 10**6)}, request_id=request.id)


def spoil_shape(request):
    """Ask for more rows than can be."""
    request.inputs[0].shape[:] = [1 << 62, 16]
    return request


@pytest.mark.parametrize("spoil", [spoil_index, spoil_shape])
def test_bad_requests_among_good_ones_harm_no_other(clients, target, spoil):
    """Half of the calls are wrong and refused; each of the others gets its own rows."""
    with run_load(clients, target, callers=32, connections=4, spoil=spoil) as load:
        load.wait_for_more(1000)
    assert set(load.outcomes) == {OK}, load.failures[:3]
    assert len(load.refusals) > 500
    assert {code for code, _ in load.refusals} == {"INVALID_ARGUMENT"}


def test_rows_that_fail_in_the_run_harm_none_of_their_batch(clients, plain):
    """An index out of range fails only when it runs, in one batch with others: only its own caller hears of it."""

    async def ask_all():
        async with plain.connect_async() as channel:
            stub = GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer(make_pick(place), timeout=TIMEOUT_S) for place in range(400)]
            return [await settle(call) for call in calls]

    def make_pick(place):
        index = 10**6 if place % 4 == 3 else place % 10
        return build_request("picker", {"index": np.array([index])}, request_id=str(place))

    async def settle(call):
        try:
            reply = await call
        except grpc.aio.AioRpcError as error:
            return error.code(), "indices element out of data bounds" in error.details()
        return reply.id, np.frombuffer(reply.raw_output_contents[0], np.float32).tolist()

    for place, outcome in enumerate(clients.run(ask_all())):
        assert outcome == ((INVALID, True) if place % 4 == 3 else (str(place), [place % 10 * 1.5]))
