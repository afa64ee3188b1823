"""What NVIDIA's own client sees; test_tritonclient runs it in another process, since it brings messages of its own.

The environment's TARGET says whom to call, as Target.to_json writes it.
"""

import asyncio
import functools
import json
import os
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from datatypes import DTYPES
from tritonclient.utils import InferenceServerException

from tests.end_to_end.triton_calls import make_input

TARGET = json.loads(os.environ["TARGET"])
CONNECTION = {"url": TARGET["address"]}
if TARGET["authority"]:
    CONNECTION |= {
        "ssl": True,
        "root_certificates": TARGET["authority"],
        "private_key": TARGET["key"],
        "certificate_chain": TARGET["certificate"],
    }
# Signalling NaN, negative infinity, negative zero and the smallest number, by their bits.
BITS = {
    "FP16": np.array([0x7D01, 0xFC00, 0x8000, 1], np.uint16),
    "BF16": np.array([0x7FA1, 0xFF80, 0x8000, 1], np.uint16),
    "FP32": np.array([0x7FA00001, 0xFF800000, 1 << 31, 1], np.uint32),
    "FP64": np.array([0x7FF4000000000001, 0xFFF0000000000000, 1 << 63, 1], np.uint64),
}
STRINGS = np.array([[b"", b"\0", b"a\0b\0", b"\xff"], [b"plain", b"\0" * 9, b"x" * 999, b"y"]], dtype=object)


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(**CONNECTION) as client:
        yield client


@pytest.mark.parametrize("datatype", DTYPES)
def test_infer_gives_back_every_datatype(client, datatype):
    """NumPy's own dtypes, as they are."""
    values = np.arange(8).reshape(2, 4).astype(DTYPES[datatype])
    answer = client.infer(f"identity_{datatype}", [make_input(values, datatype)], request_id=datatype)
    assert answer.get_response().id == datatype
    given = answer.as_numpy("output")
    assert given.dtype == values.dtype
    np.testing.assert_array_equal(given, values)


def test_infer_gives_back_bytes_with_nul(client):
    """Each element keeps its length and every byte."""
    given = client.infer("identity_BYTES", [make_input(STRINGS, "BYTES")]).as_numpy("output")
    assert given.tolist() == STRINGS.tolist()


def test_infer_gives_the_outputs_asked_for(client):
    """Of two outputs, one."""
    inputs = [make_input(np.full((1, 3), value, np.float32), "FP32", name) for name, value in (("a", 5), ("b", 1))]
    answer = client.infer("sums", inputs, outputs=[triton.InferRequestedOutput("difference")])
    assert answer.as_numpy("difference").tolist() == [[4, 4, 4]]
    assert answer.as_numpy("sum") is None


@pytest.mark.parametrize("names", [["difference", "sum"], ["sum", "difference"]])
def test_infer_gives_the_outputs_in_the_order_asked_for(client, names):
    """Of both."""
    inputs = [make_input(np.full((1, 3), value, np.float32), "FP32", name) for name, value in (("a", 5), ("b", 1))]
    answer = client.infer("sums", inputs, outputs=[triton.InferRequestedOutput(name) for name in names])
    assert [output.name for output in answer.get_response().outputs] == names


@pytest.mark.parametrize(("datatype", "bits"), list(BITS.items()))
def test_infer_keeps_every_bit_of_what_is_no_number(client, datatype, bits):
    """Signalling NaNs with their payload, infinities and the negative zero."""
    values = bits.reshape(1, 4).view(DTYPES[datatype])
    answer = client.infer(f"identity_{datatype}", [make_input(values, datatype)])
    assert answer.get_response().raw_output_contents[0] == bits.tobytes()


def test_infer_of_a_scalar_gives_a_scalar(client):
    """Rank 0, both ways."""
    answer = client.infer("scalar", [make_input(np.array(2.5, np.float32), "FP32")])
    given = answer.as_numpy("output")
    assert (given.shape, given.item()) == ((), 5.0)


def test_infer_of_an_empty_tensor_gives_an_empty_tensor(client):
    """A dimension of 0 that the model leaves open."""
    answer = client.infer("wide", [make_input(np.zeros((3, 0)), "FP64")])
    assert answer.as_numpy("output").shape == (3, 0)


@pytest.mark.parametrize(("scale", "expected"), [(None, [2, 4]), (10, [10, 20])])
def test_infer_may_leave_an_optional_input_out(client, scale, expected):
    """The model's own value takes its place."""
    inputs = [make_input(np.array([1, 2], np.float32), "FP32")]
    if scale is not None:
        inputs.append(make_input(np.array([scale], np.float32), "FP32", "scale"))
    assert client.infer("scaler", inputs).as_numpy("output").tolist() == expected


def test_infer_of_a_reshaped_model_has_the_shapes_of_its_configuration(client):
    """Also in its metadata."""
    rows = np.arange(12, dtype=np.float32).reshape(2, 6)
    given = client.infer("reshaped", [make_input(rows, "FP32")]).as_numpy("output")
    assert given.tolist() == rows.reshape(2, 3, 2).tolist()
    model = client.get_model_metadata("reshaped", as_json=True)
    assert model["inputs"][0]["shape"] == ["-1", "6"]
    assert model["outputs"][0]["shape"] == ["-1", "3", "2"]


def test_infer_gives_classes_with_their_labels(client):
    """The largest of each row, by value, index and label."""
    rows = np.array([[1, 3, 2], [9, 8, 7]], np.float32)
    outputs = [triton.InferRequestedOutput("output", class_count=2)]
    given = client.infer("labelled", [make_input(rows, "FP32")], outputs=outputs).as_numpy("output")
    assert given.tolist() == [[b"3.000000:1:dog", b"2.000000:2:bird"], [b"9.000000:0:cat", b"8.000000:1:dog"]]


def test_metadata_names_the_extensions_that_work(client):
    """By the names of the protocol."""
    extensions = set(client.get_server_metadata().extensions)
    assert {"classification", "system_shared_memory", "cuda_shared_memory"} <= extensions


@pytest.mark.parametrize(
    "name",
    [
        "get_system_shared_memory_status",
        "unregister_system_shared_memory",
        "get_cuda_shared_memory_status",
        "unregister_cuda_shared_memory",
    ],
)
def test_shared_memory_is_for_local_callers(client, name):
    """One that comes with a certificate, or through a gateway, is of another machine for all that is known."""
    if not TARGET["authority"]:
        getattr(client, name)()
        return
    with pytest.raises(InferenceServerException, match="remote_controls") as raised:
        getattr(client, name)()
    assert raised.value.status() == "StatusCode.PERMISSION_DENIED"


def test_infer_takes_priority_and_timeout(client):
    """As parameters, of a model that has no levels and no timeouts: they change nothing."""
    rows = make_input(np.array([[1, 2, 3, 4]], np.int64), "INT64")
    answer = client.infer("adder", [rows], model_version="1", priority=3, timeout=1_000_000)
    assert answer.as_numpy("output").tolist() == [[10**12 + value for value in (1, 2, 3, 4)]]


def test_infer_names_its_version(client):
    """The version asked for answers."""
    rows = np.array([[1, 2, 3, 4]], np.int64)
    for version in ("1", "2"):
        answer = client.infer("adder", [make_input(rows, "INT64")], model_version=version)
        assert answer.get_response().model_version == version
        assert answer.as_numpy("output").tolist() == (rows + int(version) * 10**12).tolist()


def test_infer_of_what_is_wrong_raises_with_the_reason(client):
    """The client's own exception carries status and text."""
    with pytest.raises(InferenceServerException, match="input 'input' has the wrong shape") as raised:
        client.infer("adder", [make_input(np.zeros((1, 3), np.int64), "INT64")])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_async_infer_calls_back_with_ones_own_rows(client):
    """The callback form of the synchronous client."""
    answers = queue.SimpleQueue()
    for nonce in range(20):
        rows = make_input(np.full((1, 4), nonce), "INT64")
        call_back = functools.partial(lambda nonce, result, error: answers.put((nonce, result, error)), nonce)
        client.async_infer("adder", [rows], call_back, model_version="1")
    for _ in range(20):
        nonce, result, error = answers.get(timeout=30)
        assert error is None
        assert result.as_numpy("output").tolist() == [[nonce + 10**12] * 4]


def test_stream_calls_back_in_order_and_with_the_reason_of_what_failed(client):
    """Its streaming form; a failure does not end the stream."""
    answers = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for nonce in range(20):
        rows = np.full((1, 3 if nonce == 7 else 4), nonce)
        client.async_stream_infer("adder", [make_input(rows, "INT64")], model_version="1", request_id=str(nonce))
    for nonce in range(20):
        result, error = answers.get(timeout=30)
        if nonce == 7:
            assert "input 'input' has the wrong shape" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(nonce)
            assert result.get_response().parameters["triton_final_response"].bool_param
            assert result.as_numpy("output").tolist() == [[nonce + 10**12] * 4]
    client.stop_stream()


def test_server_and_models_are_ready(client):
    """Liveness, readiness, of one version too."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("adder")
    assert client.is_model_ready("adder", "2")


def test_metadata_and_index_tell_what_there_is(client):
    """Both as messages and as JSON, which is how its users print them."""
    assert client.get_server_metadata().name == "sluice"
    model = client.get_model_metadata("adder", as_json=True)
    assert model["versions"] == ["1", "2"]
    assert model["inputs"] == [{"name": "input", "datatype": "INT64", "shape": ["-1", "4"]}]
    index = client.get_model_repository_index()
    assert {entry.state for entry in index.models} == {"READY"}


def test_asyncio_client_gives_each_call_its_own():
    """Its second client, many calls at a time."""

    async def ask_all():
        async with triton_async.InferenceServerClient(**CONNECTION) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("adder")).platform
            return await asyncio.gather(
                *(
                    client.infer("adder", [make_input(np.full((1, 4), nonce), "INT64")], model_version="2")
                    for nonce in range(100)
                )
            )

    answers = [answer.as_numpy("output")[0, 0] for answer in asyncio.run(ask_all())]
    assert answers == [nonce + 2 * 10**12 for nonce in range(100)]


def test_asyncio_client_streams():
    """Requests from an asynchronous iterator, answers in their order."""

    async def ask_all():
        async def requests():
            for nonce in range(20):
                yield {
                    "model_name": "adder",
                    "model_version": "1",
                    "inputs": [make_input(np.full((1, 4), nonce), "INT64")],
                }

        async with triton_async.InferenceServerClient(**CONNECTION) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(ask_all())
    assert all(error is None for _, error in answers)
    assert [result.as_numpy("output")[0, 0] for result, _ in answers] == [nonce + 10**12 for nonce in range(20)]


def test_asyncio_client_gives_back_bytes():
    """The same layout both ways."""

    async def ask():
        async with triton_async.InferenceServerClient(**CONNECTION) as client:
            return await client.infer("identity_BYTES", [make_input(STRINGS, "BYTES")], request_id="one")

    answer = asyncio.run(ask())
    assert answer.get_response().id == "one"
    assert answer.as_numpy("output").tolist() == STRINGS.tolist()


def classify(nonce):
    """A request for the largest of three numbers, which are the request's own."""
    return {
        "model_name": "labelled",
        "inputs": [make_input(np.array([[nonce, nonce + 2, nonce + 1]], np.float32), "FP32")],
        "outputs": [triton.InferRequestedOutput("output", class_count=1)],
        "request_id": str(nonce),
    }


def test_asyncio_client_gives_classes():
    """Of single calls, and of a stream."""

    async def ask_all():
        async def requests():
            for nonce in range(20):
                yield classify(nonce)

        async with triton_async.InferenceServerClient(**CONNECTION) as client:
            single = await asyncio.gather(*(client.infer(**classify(nonce)) for nonce in range(20)))
            return single, [answer async for answer in client.stream_infer(requests())]

    single, streamed = asyncio.run(ask_all())
    assert all(error is None for _, error in streamed)
    expected = [[[f"{nonce + 2}.000000:1:dog".encode()]] for nonce in range(20)]
    for answers in (single, [answer for answer, _ in streamed]):
        assert [answer.as_numpy("output").tolist() for answer in answers] == expected
        assert [answer.get_response().id for answer in answers] == [str(nonce) for nonce in range(20)]
