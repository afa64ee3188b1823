"""What NVIDIA's own client sees of system shared memory; test_tritonclient runs it, as it runs triton_checks."""

import asyncio
import contextlib
import json
import os
import queue
import uuid

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
import tritonclient.utils.shared_memory as shm
from datatypes import DTYPES
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, triton_to_np_dtype

ADDRESS = json.loads(os.environ["TARGET"])["address"]
STRINGS = np.array([[b"", b"a\0b", "ü".encode(), b"x" * 99]], dtype=object)


@pytest.fixture
def client():
    """Triton's synchronous client, of a server that knows no region but the test's."""
    with triton.InferenceServerClient(ADDRESS) as client:
        client.unregister_system_shared_memory()
        yield client
        client.unregister_system_shared_memory()


@contextlib.contextmanager
def region(client, name, size, offset=0):
    """A region of an object of its own, made and registered as Triton's examples do it."""
    key = f"/sluice-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region(name, key, offset + size)
    try:
        client.register_system_shared_memory(name, key, size, offset)
        yield handle
    finally:
        client.unregister_system_shared_memory(name)
        shm.destroy_shared_memory_region(handle)


def input_in(region_name, shape, datatype, size, offset=0, name="input"):
    """An input that lies in a region."""
    tensor = triton.InferInput(name, list(shape), datatype)
    tensor.set_shared_memory(region_name, size, offset)
    return tensor


def output_in(region_name, size, offset=0, name="output"):
    """A requested output that goes to a region."""
    output = triton.InferRequestedOutput(name)
    output.set_shared_memory(region_name, size, offset)
    return output


@pytest.mark.parametrize("offset", [0, 7])
@pytest.mark.parametrize("datatype", DTYPES)
def test_tensors_go_and_come_in_shared_memory(client, datatype, offset):
    """Of every datatype, at any offset."""
    rows = np.arange(8).reshape(2, 4).astype(DTYPES[datatype])
    size = rows.nbytes
    with region(client, "in", size + offset) as given, region(client, "out", size + offset) as made:
        shm.set_shared_memory_region(given, [rows], offset)
        answer = client.infer(
            f"identity_{datatype}",
            [input_in("in", rows.shape, datatype, size, offset)],
            outputs=[output_in("out", size, offset)],
        )
        output = answer.get_output("output")
        contents = shm.get_contents_as_numpy(made, triton_to_np_dtype(output.datatype), output.shape, offset)
        np.testing.assert_array_equal(contents, rows)
        del contents
    assert output.parameters["shared_memory_region"].string_param == "out"
    assert output.parameters["shared_memory_byte_size"].int64_param == size


def test_strings_go_and_come_in_shared_memory(client):
    """In the layout that the client's own functions write and read."""
    content = serialize_byte_tensor(STRINGS)
    size = len(content.item())
    with region(client, "in", size) as given, region(client, "out", size) as made:
        shm.set_shared_memory_region(given, [content])
        client.infer("identity_BYTES", [input_in("in", (1, 4), "BYTES", size)], outputs=[output_in("out", size)])
        assert shm.get_contents_as_numpy(made, np.object_, (1, 4)).tolist() == STRINGS.tolist()


def test_only_one_of_the_tensors_may_be_in_shared_memory(client):
    """The others are in the message, and are found where the client looks for them."""
    a, b = np.full((1, 3), 5, np.float32), np.full((1, 3), 2, np.float32)
    plain = triton.InferInput("b", [1, 3], "FP32")
    plain.set_data_from_numpy(b)
    with region(client, "both", 24) as handle:
        shm.set_shared_memory_region(handle, [a])
        answer = client.infer(
            "sums",
            [input_in("both", (1, 3), "FP32", 12, name="a"), plain],
            outputs=[output_in("both", 12, 12, "sum"), triton.InferRequestedOutput("difference")],
        )
        assert answer.as_numpy("difference").tolist() == [[3, 3, 3]]
        assert shm.get_contents_as_numpy(handle, np.float32, (1, 3), 12).tolist() == [[7, 7, 7]]


def test_regions_are_told_and_refused_with_reasons(client):
    """Status, a name that is taken, a region beyond its object, an input beyond its region."""
    with region(client, "one", 64, offset=16):
        (row,) = client.get_system_shared_memory_status().regions.values()
        assert (row.name, row.offset, row.byte_size) == ("one", 16, 64)
        with pytest.raises(InferenceServerException, match="registered already") as raised:
            client.register_system_shared_memory("one", row.key, 8)
        assert raised.value.status() == "StatusCode.ALREADY_EXISTS"
        with pytest.raises(InferenceServerException, match="the region ends at byte 129"):
            client.register_system_shared_memory("two", row.key, 65, 64)
        with pytest.raises(InferenceServerException, match="from byte 60 on of shared memory region 'one'"):
            client.infer("identity_FP32", [input_in("one", (1, 4), "FP32", 16, 60)])
    with pytest.raises(InferenceServerException, match="is not registered"):
        client.infer("identity_FP32", [input_in("one", (1, 4), "FP32", 16)])


def test_object_that_is_cut_short_does_not_end_the_server(client):
    """The request hears of it, and the next one is served."""
    with region(client, "short", 16) as handle:
        path = f"/dev/shm/{handle._shm_key.lstrip('/')}"
        os.truncate(path, 0)
        with pytest.raises(InferenceServerException, match="has become shorter"):
            client.infer("identity_FP32", [input_in("short", (1, 4), "FP32", 16)])
        os.truncate(path, 16)
        answer = client.infer("identity_FP32", [input_in("short", (1, 4), "FP32", 16)])
        assert answer.as_numpy("output").tolist() == [[0, 0, 0, 0]]


def test_stream_reads_and_writes_shared_memory(client):
    """Each request its own part of one region."""
    rows = np.arange(40, dtype=np.int64).reshape(10, 4)
    answers = queue.SimpleQueue()
    with region(client, "in", rows.nbytes) as given, region(client, "out", rows.nbytes) as made:
        shm.set_shared_memory_region(given, [rows])
        client.start_stream(lambda result, error: answers.put((result, error)))
        for place in range(10):
            tensor = input_in("in", (1, 4), "INT64", 32, 32 * place)
            outputs = [output_in("out", 32, 32 * place)]
            client.async_stream_infer("identity_INT64", [tensor], outputs=outputs, request_id=str(place))
        for place in range(10):
            result, error = answers.get(timeout=30)
            assert error is None
            assert result.get_response().id == str(place)
        client.stop_stream()
        assert shm.get_contents_as_numpy(made, np.int64, (10, 4)).tolist() == rows.tolist()


def test_asyncio_client_shares_memory(client):
    """Its second client, many calls at a time, each with its own part."""
    rows = np.arange(200, dtype=np.int64).reshape(50, 4)

    async def ask_all():
        async with triton_async.InferenceServerClient(ADDRESS) as other:
            assert set((await other.get_system_shared_memory_status()).regions) == {"in"}
            return await asyncio.gather(
                *(
                    other.infer("identity_INT64", [input_in("in", (1, 4), "INT64", 32, 32 * place)])
                    for place in range(50)
                )
            )

    with region(client, "in", rows.nbytes) as given:
        shm.set_shared_memory_region(given, [rows])
        answers = asyncio.run(ask_all())
    assert [answer.as_numpy("output")[0].tolist() for answer in answers] == rows.tolist()
