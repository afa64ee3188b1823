"""What Triton's own client examples do, step by step; test_triton_examples runs it in another process.

The environment's ADDRESS says whom to call.
"""

import asyncio
import os
import queue
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, serialized_byte_size

ADDRESS = os.environ["ADDRESS"]
TIMEOUT_S = 30
# grpc's client sends a ping a second at most.
IDLE_S = 5.5
ONES = [1] * 16
NUMBERS = list(range(16))
DATATYPES = {"simple": "INT32", "simple_int8": "INT8", "simple_string": "BYTES"}
COMPRESSIONS = (None, "gzip", "deflate")
CONNECTIONS = {
    "custom arguments": {
        "channel_args": [
            ("grpc.max_send_message_length", 2**20),
            ("grpc.max_receive_message_length", 2**20),
            ("grpc.keepalive_time_ms", 2**31 - 1),
            ("grpc.keepalive_timeout_ms", 20000),
            ("grpc.keepalive_permit_without_calls", False),
            ("grpc.http2.max_pings_without_data", 2),
            ("grpc.dns_enable_srv_queries", 1),
        ]
    },
    "no arguments": {"channel_args": []},
    "keepalive as it is": {"keepalive_options": triton.KeepAliveOptions()},
}


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_array(model, numbers):
    """Numbers as one row of a model's datatype."""
    if model == "simple_string":
        return np.array([[str(number).encode() for number in numbers]], dtype=object)
    return np.array([numbers], np.int8 if model == "simple_int8" else np.int32)


def make_inputs(model="simple", numbers=NUMBERS, others=ONES):
    """Both inputs of a model that adds and subtracts."""
    inputs = [triton.InferInput(f"INPUT{place}", [1, 16], DATATYPES[model]) for place in range(2)]
    for tensor, values in zip(inputs, (numbers, others), strict=True):
        tensor.set_data_from_numpy(make_array(model, values))
    return inputs


def make_outputs():
    """Both of its outputs."""
    return [triton.InferRequestedOutput(f"OUTPUT{place}") for place in range(2)]


def read_numbers(result, name):
    """An output's row as numbers."""
    return [int(value) for value in result.as_numpy(name)[0]]


def check(result, numbers=NUMBERS, others=ONES):
    """Sum and difference are those of what was sent."""
    assert read_numbers(result, "OUTPUT0") == [a + b for a, b in zip(numbers, others, strict=True)]
    assert read_numbers(result, "OUTPUT1") == [a - b for a, b in zip(numbers, others, strict=True)]


# ---- every way to ask


def ask_plainly(request, compression):
    """simple_grpc_infer_client, simple_grpc_string_infer_client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        return client.infer(**request, headers={"test": "1"}, compression_algorithm=compression)


def ask_by_callback(request, compression):
    """simple_grpc_async_infer_client."""
    answers = queue.SimpleQueue()
    with triton.InferenceServerClient(ADDRESS) as client:
        client.async_infer(
            **request,
            callback=lambda result, error: answers.put((result, error)),
            client_timeout=TIMEOUT_S,
            compression_algorithm=compression,
        )
        result, error = answers.get(timeout=TIMEOUT_S)
    assert error is None
    return result


def ask_on_stream(request, compression):
    """The stream of simple_grpc_sequence_stream_infer_client, without sequences."""
    answers = queue.SimpleQueue()
    with triton.InferenceServerClient(ADDRESS) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm=compression)
        client.async_stream_infer(**request, enable_empty_final_response=True)
        result, error = answers.get(timeout=TIMEOUT_S)
        client.stop_stream()
    assert error is None
    assert result.get_response().parameters["triton_final_response"].bool_param
    assert answers.empty()
    return result


def ask_with_asyncio(request, compression):
    """simple_grpc_aio_infer_client."""

    async def ask():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            results = await asyncio.gather(
                *(client.infer(**request, headers={"test": "1"}, compression_algorithm=compression) for _ in range(2))
            )
            statistics = await client.get_inference_statistics(model_name=request["model_name"])
            assert len(statistics.model_stats) == 1
            return results

    first, second = asyncio.run(ask())
    assert str(first.get_response()) == str(second.get_response())
    return first


def ask_on_stream_with_asyncio(request, compression):
    """The stream of simple_grpc_aio_sequence_stream_infer_client, without sequences."""

    async def ask():
        async def requests():
            yield dict(request)

        async with triton_async.InferenceServerClient(ADDRESS) as client:
            stream = client.stream_infer(requests(), compression_algorithm=compression, stream_timeout=TIMEOUT_S)
            return [answer async for answer in stream]

    [(result, error)] = asyncio.run(ask())
    assert error is None
    return result


WAYS = (ask_plainly, ask_by_callback, ask_on_stream, ask_with_asyncio, ask_on_stream_with_asyncio)


@pytest.mark.parametrize("names", [None, ["OUTPUT0", "OUTPUT1"]], ids=["all", "named"])
@pytest.mark.parametrize("model", DATATYPES)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_ask_adds_and_subtracts(way, model, names):
    """Of numbers and of strings, with outputs named and not."""
    request = {"model_name": model, "inputs": make_inputs(model), "request_id": "1"}
    result = way(request | {"outputs": names and make_outputs()}, None)
    check(result)
    assert (result.get_response().id, result.get_response().model_name) == ("1", model)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_ask_may_be_compressed(way, compression):
    """Of a tensor that is worth it."""
    values = np.zeros((8, 100, 100), np.float32)
    values[7, 99, 99] = 7
    tensor = triton.InferInput("input", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    result = way({"model_name": "variable_FP32", "inputs": [tensor]}, compression)
    np.testing.assert_array_equal(result.as_numpy("output"), values)


@pytest.mark.parametrize("model", DATATYPES)
def test_explicit_contents_are_answered_raw(model):
    """grpc_explicit_int_content_client, …_int8_… and …_byte_content_client: values in fields of the message."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version="")
    for place, numbers in enumerate((NUMBERS, ONES)):
        tensor = request.inputs.add(name=f"INPUT{place}", datatype=DATATYPES[model], shape=[1, 16])
        if model == "simple_string":
            tensor.contents.bytes_contents.extend(str(number).encode() for number in numbers)
        else:
            tensor.contents.int_contents[:] = numbers
        request.outputs.add(name=f"OUTPUT{place}")
    with grpc.insecure_channel(ADDRESS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(request, timeout=TIMEOUT_S)
        request.model_version = "wrong_specification"
        with pytest.raises(grpc.RpcError, match="from specified version string 'wrong_specification'"):
            stub.ModelInfer(request, timeout=TIMEOUT_S)
    assert not any(output.HasField("contents") for output in response.outputs)
    check(triton.InferResult(response))


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_connection_with_options_is_served(connection):
    """simple_grpc_custom_args_client and simple_grpc_keepalive_client."""
    with triton.InferenceServerClient(ADDRESS, **CONNECTIONS[connection]) as client:
        check(client.infer("simple", make_inputs(), outputs=make_outputs(), headers={"test": "1"}))


def test_connection_that_pings_all_the_time_lasts():
    """A server that counts pings without calls hangs up at the fourth."""
    has_left = threading.Event()
    options = triton.KeepAliveOptions(
        keepalive_time_ms=100, keepalive_permit_without_calls=True, http2_max_pings_without_data=0
    )
    with triton.InferenceServerClient(ADDRESS, keepalive_options=options) as client:
        assert client.is_server_live()
        client._channel.subscribe(lambda state: state is grpc.ChannelConnectivity.READY or has_left.set())
        assert not has_left.wait(IDLE_S)
        check(client.infer("simple", make_inputs()))


def test_objects_are_used_again(client):
    """reuse_infer_objects_client: the same objects with shared memory, without it, and with it again."""
    inputs, outputs = make_inputs(), make_outputs()
    names = ["input0_data", "input1_data", "output0_data", "output1_data"]
    handles = {name: shm.create_shared_memory_region(name, f"/reused_{os.getpid()}_{name}", 64) for name in names}
    try:
        for name in names:
            client.register_system_shared_memory(name, f"/reused_{os.getpid()}_{name}", 64)
        shm.set_shared_memory_region(handles["input0_data"], [make_array("simple", NUMBERS)])
        shm.set_shared_memory_region(handles["input1_data"], [make_array("simple", ONES)])
        for is_shared in (True, False, True):
            for place, (given, made) in enumerate(zip(inputs, outputs, strict=True)):
                if is_shared:
                    given.set_shared_memory(f"input{place}_data", 64)
                    made.set_shared_memory(f"output{place}_data", 64)
                else:
                    given.set_data_from_numpy(make_array("simple", [7] * 16))
                    made.unset_shared_memory()
            result = client.infer("simple", inputs, outputs=outputs)
            if is_shared:
                sums = shm.get_contents_as_numpy(handles["output0_data"], np.int32, [1, 16])
                assert sums.tolist() == [[number + 1 for number in NUMBERS]]
                del sums
            else:
                check(result, [7] * 16, [7] * 16)
    finally:
        client.unregister_system_shared_memory()
        for handle in handles.values():
            shm.destroy_shared_memory_region(handle)


def test_strings_are_shared(client):
    """simple_grpc_shm_string_client: two inputs and two outputs, each of the size that its strings have."""
    expected = [[a + b for a, b in zip(NUMBERS, ONES, strict=True)], [a - 1 for a in NUMBERS]]
    rows = dict(zip(("in0", "in1", "out0", "out1"), (NUMBERS, ONES, *expected), strict=True))
    contents = {name: serialize_byte_tensor(make_array("simple_string", row)) for name, row in rows.items()}
    sizes = {name: serialized_byte_size(content) for name, content in contents.items()}
    keys = {name: f"/strings_{os.getpid()}_{name}" for name in rows}
    handles = {name: shm.create_shared_memory_region(name, keys[name], sizes[name]) for name in rows}
    try:
        for name in rows:
            client.register_system_shared_memory(name, keys[name], sizes[name])
        inputs, outputs = [triton.InferInput(f"INPUT{place}", [1, 16], "BYTES") for place in range(2)], make_outputs()
        for place in range(2):
            shm.set_shared_memory_region(handles[f"in{place}"], [contents[f"in{place}"]])
            inputs[place].set_shared_memory(f"in{place}", sizes[f"in{place}"])
            outputs[place].set_shared_memory(f"out{place}", sizes[f"out{place}"])
        client.infer("simple_string", inputs, outputs=outputs)
        for place, numbers in enumerate(expected):
            given = shm.get_contents_as_numpy(handles[f"out{place}"], np.object_, [1, 16])
            assert given.tolist() == make_array("simple_string", numbers).tolist()
    finally:
        client.unregister_system_shared_memory()
        for handle in handles.values():
            shm.destroy_shared_memory_region(handle)


def test_health_and_metadata(client):
    """simple_grpc_health_metadata; a model that is not there is told in the words that the example looks for."""
    assert client.is_server_live(headers={"test": "1", "dummy": "2"})
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.get_server_metadata().name == "sluice"
    metadata = client.get_model_metadata("simple", headers={"test": "1", "dummy": "2"})
    assert [(one.name, one.datatype, list(one.shape)) for one in (*metadata.inputs, *metadata.outputs)] == [
        (name, "INT32", [-1, 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    ]
    assert client.get_model_config("simple").config.name == "simple"
    for call in (client.get_model_metadata, client.get_model_config, client.is_model_ready):
        with pytest.raises(InferenceServerException, match="Request for unknown model") as raised:
            call("wrong_model_name")
        assert raised.value.status() == "StatusCode.NOT_FOUND"
