"""Models whose sessions have lanes, as those on GPUs do: nobody gets another's rows, and a refusal is the caller's."""

import threading

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_request

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import OK, run_load
from tests.end_to_end.models import VERSIONS, adder
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 30.0
CALLS = 400
LANES = """
max_batch_size: 8
instance_group { kind: KIND_CPU count: 2 }
parameters { key: "buffer_sets" value { string_value: "2" } }
"""
# As somebody writes it whose machines have GPUs, all but this one.
FALLS_BACK = """
max_batch_size: 8
instance_group { kind: KIND_GPU }
parameters { key: "fall_back_to_cpu" value { string_value: "true" } }
parameters { key: "buffer_sets" value { string_value: "3" } }
"""
SINGLE = 'max_batch_size: 0 parameters { key: "buffer_sets" value { string_value: "2" } }'


@pytest.fixture(scope="module", params=[LANES, FALLS_BACK], ids=["lanes", "falls_back"])
def server(transport, request, tmp_path_factory):
    """The way to a server whose models all have lanes."""
    folder = tmp_path_factory.mktemp("lanes")
    for version in VERSIONS:
        onnx_models.save(adder(version), folder, "adder", version, request.param)
    onnx_models.save(onnx_models.ones_counter(), folder, "ones", config=SINGLE)
    with ServerProcess(folder, "--insecure") as server:
        yield Target(server.address)


def count_ones(channel, size):
    """The sum of as many ones, made by the server."""
    request = build_request("ones", {"size": np.array([size], np.int64)})
    reply = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=TIMEOUT_S)
    return np.frombuffer(reply.raw_output_contents[0], np.float32).tolist()


def test_callers_get_their_own_rows(clients, server):
    """Sixteen at a time, over four connections, of whichever version."""
    with run_load(clients, server, callers=16, connections=4) as load:
        load.wait_for_more(CALLS)
    assert set(load.outcomes) == {OK}
    assert set(load.versions) == {"2"}


def test_out_of_memory_is_resource_exhausted_and_others_are_served(clients, server):
    """The session lives, and so do those beside it."""
    with run_load(clients, server, callers=4) as load, server.connect() as channel:
        for _ in range(3):
            with pytest.raises(grpc.RpcError, match="memory") as raised:
                count_ones(channel, 1 << 50)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert count_ones(channel, 1000) == [1000.0]
        load.wait_for_more(1)
    assert set(load.outcomes) == {OK}


def test_cancelled_and_late_calls_leave_the_others_theirs(clients, server):
    """Calls that nobody waits for any more, at every stage of their way."""
    with run_load(clients, server, callers=8) as load, server.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        ended = threading.Semaphore(0)
        for turn in range(200):
            request = build_request("adder", {"input": np.full((1 + turn % 8, 4), turn, np.int64)})
            call = stub.ModelInfer.future(request, timeout=0.0005 if turn % 2 else TIMEOUT_S)
            call.add_done_callback(lambda _: ended.release())
            if turn % 2 == 0:
                call.cancel()
        for _ in range(200):
            assert ended.acquire(timeout=TIMEOUT_S)
        load.wait_for_more(CALLS)
    assert set(load.outcomes) == {OK}
