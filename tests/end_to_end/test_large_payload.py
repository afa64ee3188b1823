"""Messages as large as gRPC has them: 1.9 GiB is served where the limits allow it, 3 GiB never, and memory comes back.

At full size the message is sent as it is made, so that only the server holds it; NVIDIA's client, which holds several
copies, goes to a tenth of that.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_models
import pytest
from inference_messages import build_request, decode_reply

from tests.end_to_end.example_models import total
from tests.end_to_end.models import expander
from tests.end_to_end.server_process import ServerProcess
from tests.http2_frames import LARGEST_WINDOW, encode_message
from tests.raw_http2 import RawConnection
from tests.raw_upload import Upload

RESOURCE_EXHAUSTED = 8
GIB = 2**30
LARGEST = 2**31 - 1
LIMITS = ("max-message-bytes", "max-connection-bytes", "max-buffered-bytes", "max-pending-bytes")
TENSOR_BYTES = int(1.9 * GIB) // 4 * 4
# With its arena ONNX Runtime would keep as much memory as the largest run of each model took.
UNBATCHED = 'max_batch_size: 0 parameters { key: "enable_mem_arena" value { string_value: "0" } }'
# What a server of the reference transport holds of one such message at a time, with room for what else runs.
NEEDED_BYTES = 10 * GIB
# What the allocator keeps of messages (service/allocator.py), with room for what a server that has run takes more.
KEPT_BYTES = 128 * 2**20
SETTLE_S = 60.0
# The reference transport takes a message apart and puts it together again, in Python.
PATIENCE_S = 100.0
SCALED_BYTES = 200 * 2**20


def read_available_bytes():
    """The machine's memory that can be had."""
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


needs_memory = pytest.mark.skipif(read_available_bytes() < NEEDED_BYTES, reason="10 GiB of free memory are missing")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One that takes any number of numbers and one that makes it."""
    folder = tmp_path_factory.mktemp("large")
    onnx_models.save(total(), folder, "total", config=UNBATCHED)
    onnx_models.save(expander(), folder, "expander", config=UNBATCHED)
    onnx_models.save(onnx_models.identity(shape=("a",)), folder, "same", config=UNBATCHED)
    return folder


@pytest.fixture
def server(transport, models):
    """A server whose limits are those of gRPC itself."""
    flags = [part for name in LIMITS for part in (f"--{name}", LARGEST if name == LIMITS[0] else 2 * LARGEST)]
    with ServerProcess(models, "--insecure", *flags) as server:
        yield server


def await_memory(server, limit_bytes):
    """Return once the server takes no more than that."""
    until = time.monotonic() + SETTLE_S
    while (taken := server.read_memory_bytes()) > limit_bytes:
        assert time.monotonic() < until, f"{taken / 2**20:.0f} MiB, expected {limit_bytes / 2**20:.0f}"
        time.sleep(0.1)


def ask_total(server, numbers):
    """A small request that is served."""
    with RawConnection(server.address) as connection:
        stream = connection.send_call(build_request("total", {"input": numbers}).SerializeToString())
        return decode_reply(connection.await_reply(stream).message)


def encode_head(size):
    """A request for `total` up to its tensor of so many bytes, whose content follows."""
    request = build_request("total", {"input": np.zeros(0, np.float32)})
    request.inputs[0].shape[:] = [size // 4]
    del request.raw_input_contents[:]
    # raw_input_contents is field 7, length-delimited.
    return request.SerializeToString() + b"\x3a" + encode_varint(size)


def encode_varint(number):
    """A number of protobuf's."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


@needs_memory
def test_tensor_of_nearly_two_gib_is_served_and_its_memory_comes_back(server):
    """Its last number arrives, the next request is served, and a second one of that size too."""
    ask_total(server, np.ones(3, np.float32))
    before = server.read_memory_bytes()
    for _ in range(2):
        with RawConnection(server.address, timeout_s=PATIENCE_S) as connection:
            reply = Upload(connection).send(
                encode_head(TENSOR_BYTES), TENSOR_BYTES - 4, np.array([42], np.float32).tobytes()
            )
        assert reply.status == 0, reply.fields
        outputs = decode_reply(reply.message)
        assert (outputs["output"].tolist(), outputs["count"].tolist()) == ([42], [TENSOR_BYTES // 4])
        assert ask_total(server, np.ones(3, np.float32))["output"].tolist() == [3]
        await_memory(server, before + KEPT_BYTES)


@needs_memory
def test_reply_of_nearly_two_gib_is_sent_and_its_memory_comes_back(server):
    """Every number of it; the client takes it at its own pace."""
    ask_total(server, np.ones(3, np.float32))
    before = server.read_memory_bytes()
    request = build_request("expander", {"input": np.array([TENSOR_BYTES // 4])}).SerializeToString()
    with RawConnection(server.address, window=LARGEST_WINDOW, timeout_s=PATIENCE_S) as connection:
        reply = connection.await_reply(connection.send_call(request))
    assert reply.status == 0, reply.fields
    numbers = np.frombuffer(reply.data, np.float32, TENSOR_BYTES // 4, offset=len(reply.data) - TENSOR_BYTES)
    assert numbers.min() == numbers.max() == 1
    await_memory(server, before + KEPT_BYTES)
    assert ask_total(server, np.ones(3, np.float32))["output"].tolist() == [3]


@pytest.mark.parametrize("size", [LARGEST + 1, 3 * GIB, 2**32 - 1])
def test_message_that_is_announced_as_larger_is_refused_before_it_comes(server, size):
    """By its prefix, with the limit in the text; nothing is taken up for it, and the connection goes on."""
    ask_total(server, np.ones(3, np.float32))
    before = server.read_memory_bytes()
    with RawConnection(server.address) as connection:
        stream = connection.open_call()
        connection.send_data(stream, encode_message(bytes(10_000), size=size))
        reply = connection.await_reply(stream)
        assert reply.status == RESOURCE_EXHAUSTED
        assert str(LARGEST) in reply.fields["grpc-message"]
        good = connection.send_call(build_request("total", {"input": np.ones(3, np.float32)}).SerializeToString())
        assert decode_reply(connection.await_reply(good).message)["output"].tolist() == [3]
    assert server.read_memory_bytes() < before + KEPT_BYTES


@pytest.mark.parametrize("size", [SCALED_BYTES, SCALED_BYTES + 2**20])
def test_tritonclient_meets_the_limit_that_is_set(transport, models, size):
    """At it, both ways, and above it: served, or told so, and the server lives."""
    limit = SCALED_BYTES + 2**16
    script = Path(__file__).with_name("large_tensor.py")
    with ServerProcess(models, "--insecure", "--max-message-bytes", limit) as server:
        ask_total(server, np.ones(3, np.float32))
        before = server.read_memory_bytes()
        command = [sys.executable, str(script), server.address, str(size)]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        expected = "the same" if size < limit else "StatusCode.RESOURCE_EXHAUSTED"
        assert done.stdout.split("\n")[0] == expected, done.stdout
        assert ask_total(server, np.ones(3, np.float32))["output"].tolist() == [3]
        await_memory(server, before + KEPT_BYTES)
