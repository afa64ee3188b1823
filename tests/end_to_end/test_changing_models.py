"""Models that come, change and go while the server runs: by clients' calls, or by what the repository holds."""

import os
import shutil
import time
from pathlib import Path

import grpc
import numpy as np
import onnx_models
import pytest
from google.protobuf import json_format
from inference_messages import build_request
from onnx import TensorProto, helper, numpy_helper

from service.low_priority import NICENESS
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.version_loader import PARALLEL_SESSIONS
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.load import find_wrong, make_request, run_load
from tests.end_to_end.models import adder, make_model
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 60.0
EXPLICIT = ("--insecure", "--model-control-mode", "explicit")
POLL = ("--insecure", "--model-control-mode", "poll", "--repository-poll-secs", "0.1")
WEIGHTS_BYTES = 128 * 2**20


def connect(server):
    """A channel to a server, and stubs on it."""
    return Target(server.address).connect()


def call_load(channel, name, config=None):
    """RepositoryModelLoad."""
    request = pb.RepositoryModelLoadRequest(model_name=name)
    if config is not None:
        request.parameters["config"].string_param = config
    return GRPCInferenceServiceStub(channel).RepositoryModelLoad(request, timeout=TIMEOUT_S)


def call_unload(channel, name):
    """RepositoryModelUnload."""
    request = pb.RepositoryModelUnloadRequest(model_name=name)
    return GRPCInferenceServiceStub(channel).RepositoryModelUnload(request, timeout=TIMEOUT_S)


def read_index(channel):
    """RepositoryIndex, as {(name, version): state}."""
    models = GRPCInferenceServiceStub(channel).RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
    return {(entry.name, entry.version): entry.state for entry in models}


def await_index(channel, expected):
    """Return once the index is as expected."""
    until = time.monotonic() + TIMEOUT_S
    while (index := read_index(channel)) != expected:
        assert time.monotonic() < until, index
        time.sleep(0.02)


def save_adder(folder, *versions, config="max_batch_size: 8"):
    """Versions of `adder`, each of which adds as many offsets as its number."""
    for version in versions:
        onnx_models.save(adder(version), folder, "adder", version, config)


def test_tritonclient_controls_models(transport, tmp_path):
    """Every check of triton_control_checks passes."""
    repository, spare = tmp_path / "models", tmp_path / "spare"
    save_adder(repository, 1, 2)
    onnx_models.save(adder(9), spare, "adder", 9)
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"\x0a\xff")
    with ServerProcess(repository, *EXPLICIT) as server:
        places = {"REPOSITORY": str(repository), "SPARE": str(spare)}
        run_checks("triton_control_checks.py", ADDRESS=server.address, **places)


def test_explicit_start_loads_what_is_named(transport, tmp_path):
    """The rest is known and unloaded; a name without a folder is in the log, and the server serves."""
    save_adder(tmp_path, 1)
    onnx_models.save(onnx_models.tiny(), tmp_path, "tiny")
    with ServerProcess(tmp_path, *EXPLICIT, "--load-model", "adder", "--load-model", "nobody") as server:
        assert server.await_event("model to load is not in the repository")["model"] == "nobody"
        with connect(server) as channel:
            assert read_index(channel) == {("adder", "1"): "READY", ("tiny", "1"): "UNAVAILABLE"}
    with ServerProcess(tmp_path, *EXPLICIT, "--load-model", "*") as server, connect(server) as channel:
        assert set(read_index(channel).values()) == {"READY"}


def test_server_without_control_refuses_to_load(transport, tmp_path):
    """The default: what was there at the start, and nothing else."""
    save_adder(tmp_path, 1)
    with ServerProcess(tmp_path) as server, connect(server) as channel:
        with pytest.raises(grpc.RpcError, match="expected model_control_mode 'explicit', given 'none'") as raised:
            call_load(channel, "adder")
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_poll_follows_the_repository(transport, tmp_path):
    """New versions, changed ones, removed ones, whole models, and labels that move."""
    save_adder(tmp_path, 1)
    with ServerProcess(tmp_path, *POLL) as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert read_index(channel) == {("adder", "1"): "READY"}
        save_adder(tmp_path, 2)
        await_index(channel, {("adder", "1"): "READY", ("adder", "2"): "READY"})
        assert find_wrong(stub.ModelInfer(make_request(3), timeout=TIMEOUT_S), 3) == ""
        shutil.rmtree(tmp_path / "adder" / "1")
        await_index(channel, {("adder", "2"): "READY"})
        onnx_models.save(onnx_models.tiny(), tmp_path, "tiny")
        await_index(channel, {("adder", "2"): "READY", ("tiny", "1"): "READY"})
        shutil.rmtree(tmp_path / "adder")
        await_index(channel, {("tiny", "1"): "READY"})
        with pytest.raises(grpc.RpcError, match="Request for unknown model: 'adder' is not found") as raised:
            stub.ModelInfer(make_request(3), timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_poll_that_finds_a_broken_version_keeps_the_old_one(clients, transport, tmp_path):
    """Under load: no call fails before, meanwhile or after, until the whole one comes."""
    policy = "max_batch_size: 8 version_policy { latest {} }"
    save_adder(tmp_path, 1, config=policy)
    with ServerProcess(tmp_path, *POLL) as server, connect(server) as channel:
        with run_load(clients, Target(server.address), callers=8, is_patient=False) as load:
            (tmp_path / "adder" / "2").mkdir()
            (tmp_path / "adder" / "2" / "model.onnx").write_bytes(adder(2).SerializeToString()[:-9])
            await_index(channel, {("adder", "1"): "READY", ("adder", "2"): "UNAVAILABLE"})
            assert set(load.wait_for_more(50)) == {"1"}
            save_adder(tmp_path, 2, config=policy)
            await_index(channel, {("adder", "2"): "READY"})
            assert set(load.wait_for_more(100)) >= {"2"}
        assert load.failures == []


def test_reload_under_load_fails_no_call(clients, transport, tmp_path):
    """A model is loaded anew again and again while it is called; each answer is its caller's own."""
    save_adder(tmp_path, 1)
    with ServerProcess(tmp_path, *EXPLICIT, "--load-model", "adder") as server, connect(server) as channel:
        with run_load(clients, Target(server.address), callers=16, connections=4, is_patient=False) as load:
            for turn in range(10):
                call_load(channel, "adder", f'{{"max_batch_size": {4 + turn}}}')
                load.wait_for_more(20)
        assert load.failures == []


def test_labels_move_atomically_under_load(clients, transport, tmp_path):
    """Callers of `live` are answered by one of its two versions, and by the new one from the answer to the load on."""
    save_adder(tmp_path, 1, 2)
    labels = '{{"parameters": {{"version_labels": {{"string_value": "live={}"}}}}}}'
    with ServerProcess(tmp_path, *EXPLICIT) as server, connect(server) as channel:
        call_load(channel, "adder", labels.format(1))
        with run_load(clients, Target(server.address), callers=8, version="live", is_patient=False) as load:
            for turn in range(10):
                call_load(channel, "adder", labels.format(1 + turn % 2))
                reply = GRPCInferenceServiceStub(channel).ModelInfer(make_request(5, version="live"), timeout=TIMEOUT_S)
                assert reply.model_version == str(1 + turn % 2)
                load.wait_for_more(20)
        assert load.failures == []
        assert set(load.versions) == {"1", "2"}


def heavy():
    """INT64 ``input`` [batch] to FP32 ``output`` [batch, 4]: rows of a table of 128 MiB."""
    table = np.arange(WEIGHTS_BYTES // 4, dtype=np.float32).reshape(-1, 4)
    node = helper.make_node("Gather", ["table", "input"], ["output"])
    weights = numpy_helper.from_array(table, "table")
    return make_model(node, ["batch"], TensorProto.INT64, ["batch", 4], TensorProto.FLOAT, [weights])


def test_unload_frees_the_memory_of_a_model(transport, tmp_path):
    """Again and again: what it took is given back to the system but for a tenth, and nothing adds up."""
    onnx_models.save(heavy(), tmp_path, "heavy")
    with ServerProcess(tmp_path, *EXPLICIT) as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        # ONNX Runtime's own, which the first model brings with it.
        call_load(channel, "heavy")
        call_unload(channel, "heavy")
        empty = server.read_memory_bytes()
        for _ in range(4):
            call_load(channel, "heavy")
            reply = stub.ModelInfer(build_request("heavy", {"input": np.array([7])}), timeout=TIMEOUT_S)
            assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [28, 29, 30, 31]
            assert server.read_memory_bytes() - empty > 0.9 * WEIGHTS_BYTES
            call_unload(channel, "heavy")
            assert server.read_memory_bytes() - empty < 0.1 * WEIGHTS_BYTES


def test_reload_gives_back_the_memory_of_what_it_replaced(transport, tmp_path):
    """After the load there is one model in memory, not one for each load."""
    onnx_models.save(heavy(), tmp_path, "heavy")
    with ServerProcess(tmp_path, *EXPLICIT, "--load-model", "heavy") as server, connect(server) as channel:
        once = server.read_memory_bytes()
        for turn in range(3):
            call_load(channel, "heavy", f'{{"max_batch_size": {turn + 1}}}')
        assert server.read_memory_bytes() < once + 0.2 * WEIGHTS_BYTES


def test_model_is_not_ready_before_it_is_warm(transport, tmp_path):
    """A warm-up of a second: the index, readiness and callers see that it loads, and then that it serves."""
    warmup = """model_warmup { count: 5 inputs { key: "input" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
        max_batch_size: 1"""
    onnx_models.save(onnx_models.slow(), tmp_path, "slow", config=warmup)
    with ServerProcess(tmp_path, *EXPLICIT) as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        loading = stub.RepositoryModelLoad.future(pb.RepositoryModelLoadRequest(model_name="slow"), timeout=TIMEOUT_S)
        await_index(channel, {("slow", "1"): "LOADING"})
        assert not stub.ModelReady(pb.ModelReadyRequest(name="slow"), timeout=TIMEOUT_S).ready
        with pytest.raises(grpc.RpcError, match="model 'slow' is unavailable: the model is loading"):
            stub.ModelInfer(build_request("slow", {"input": np.ones((1, 4), np.float32)}), timeout=TIMEOUT_S)
        assert not loading.done()
        assert json_format.MessageToDict(loading.result()) == {}
        assert stub.ModelReady(pb.ModelReadyRequest(name="slow"), timeout=TIMEOUT_S).ready


def read_niceness(pid):
    """Of every thread of a process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads]


def test_loads_leave_low_priority_to_the_threads_that_load(transport, tmp_path):
    """Neither the shared pool, which the first model brings, nor a model's own threads, nor workers inherit it."""
    save_adder(tmp_path, 1)
    own = 'parameters { key: "intra_op_thread_count" value { string_value: "3" } }'
    onnx_models.save(onnx_models.tiny(), tmp_path, "tiny", config=own)
    with ServerProcess(tmp_path, "--insecure", "--intra-op-threads", "3", "--inline", "never") as server:
        with connect(server) as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert find_wrong(stub.ModelInfer(make_request(3), timeout=TIMEOUT_S), 3) == ""
        ordinary = os.getpriority(os.PRIO_PROCESS, server.pid)
        niceness = read_niceness(server.pid)
        assert niceness.count(ordinary) > 6
        assert set(niceness) == {ordinary, min(ordinary + NICENESS, 19)}
        assert 1 <= len(niceness) - niceness.count(ordinary) <= PARALLEL_SESSIONS


def test_sigterm_during_a_load_ends_the_server_in_time(transport, tmp_path):
    """Nobody waits for a warm-up of hours."""
    warmup = """model_warmup { count: 100000
        inputs { key: "input" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } } max_batch_size: 1"""
    onnx_models.save(onnx_models.slow(), tmp_path, "slow", config=warmup)
    with ServerProcess(tmp_path, *EXPLICIT, "--drain-timeout", "1") as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        loading = stub.RepositoryModelLoad.future(pb.RepositoryModelLoadRequest(model_name="slow"), timeout=TIMEOUT_S)
        await_index(channel, {("slow", "1"): "LOADING"})
        assert not loading.done()
        server.terminate()
        assert server.wait() == 0
        assert loading.exception().code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
