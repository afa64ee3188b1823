"""Lazy loading: hundreds of models in a budget for a few of them, under concurrent callers, none of whom notices."""

import asyncio
import os
import random
import re
import shutil
import subprocess
import time
import urllib.request

import grpc
import numpy as np
import onnx_models
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from inference_messages import build_request

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.repository import DORMANT
from tests.end_to_end.load import find_wrong, make_request
from tests.end_to_end.models import OFFSET, adder
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 60.0
LAZY = ("--insecure", "--lazy-loading", "--metrics-port", "0")
MODELS, THOUSANDS = 300, 2000
CALLERS, CALLS = 32, 40
# All of them take 24 MB.
BUDGET_BYTES = 6 * 2**20


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory):
    """Models of which each adds another number, so that an answer tells who gave it."""
    folder = tmp_path_factory.mktemp("hundreds")
    for number in range(MODELS):
        onnx_models.save(adder(number), folder, f"model{number}", config="max_batch_size: 8")
    return folder


def await_true(condition):
    """Return once a condition holds."""
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def read_metrics(server):
    """The text of a scrape."""
    with urllib.request.urlopen(f"http://{server.await_event('ready')['metrics']}/metrics", timeout=20) as answer:
        return answer.read().decode()


def scrape(server):
    """The metrics that have no labels."""
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", read_metrics(server), re.MULTILINE)}


async def call_at_random(channel, seed):
    """Calls of models at random, some of them again; what was wrong with any of the answers."""
    generator, stub, wrong = random.Random(seed), GRPCInferenceServiceStub(channel), []
    for turn in range(CALLS):
        number, nonce = generator.randrange(MODELS), seed * CALLS + turn + 1
        request = build_request(f"model{number}", {"input": np.full((1, 4), nonce)}, request_id=f"nonce-{nonce}")
        reply = await stub.ModelInfer(request, timeout=TIMEOUT_S)
        given = np.frombuffer(reply.raw_output_contents[0], np.int64).tolist()
        if (reply.model_name, reply.id, given) != (f"model{number}", request.id, [nonce + number * OFFSET] * 4):
            wrong.append((request.model_name, nonce, given))
    return wrong


async def call_from_all_sides(target):
    """So many callers at a time, over four connections; what was wrong."""
    async with target.connect_async() as one, target.connect_async() as two, target.connect_async() as three:
        channels = (one, two, three)
        calls = [call_at_random(channels[seed % len(channels)], seed) for seed in range(CALLERS)]
        return [wrong for found in await asyncio.gather(*calls) for wrong in found]


def test_hundreds_of_models_serve_from_the_memory_of_a_few(clients, transport, hundreds):
    """Every call is answered by its own model with its own rows, and what models take stays within the budget."""
    with ServerProcess(hundreds, *LAZY, "--memory-budget-bytes", BUDGET_BYTES) as server:
        before = scrape(server)
        assert before["sluice_models_in_memory"] == before["sluice_lazy_loads_total"] == 0
        assert clients.run(call_from_all_sides(Target(server.address)), 2 * TIMEOUT_S) == []
        await_true(lambda: scrape(server)["sluice_model_memory_bytes"] <= BUDGET_BYTES)
        after = scrape(server)
    assert after["sluice_lazy_loads_total"] > MODELS / 2
    assert after["sluice_evictions_total"] > MODELS / 4
    assert 0 < after["sluice_models_in_memory"] < MODELS / 2


def test_dormant_models_tell_what_there_is_without_being_loaded(transport, hundreds):
    """Index, readiness, health, metadata and configuration: of all of them, and nothing is in memory afterwards."""
    with ServerProcess(hundreds, *LAZY) as server, Target(server.address).connect() as channel:
        stub, health = GRPCInferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=TIMEOUT_S).models
        assert {(entry.state, entry.reason) for entry in index} == {("READY", DORMANT)}
        assert len(index) == MODELS
        for number in range(0, MODELS, 50):
            name = f"model{number}"
            assert stub.ModelReady(pb.ModelReadyRequest(name=name, version="1"), timeout=TIMEOUT_S).ready
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
            metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=TIMEOUT_S)
            assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
                ("input", "INT64", [-1, 4])
            ]
            config = stub.ModelConfig(pb.ModelConfigRequest(name=name), timeout=TIMEOUT_S).config
            assert (config.name, config.max_batch_size) == (name, 8)
        assert scrape(server)["sluice_lazy_loads_total"] == 0
        before = stub.ModelMetadata(pb.ModelMetadataRequest(name="model7"), timeout=TIMEOUT_S)
        stub.ModelInfer(build_request("model7", {"input": np.zeros((1, 4), np.int64)}), timeout=TIMEOUT_S)
        assert stub.ModelMetadata(pb.ModelMetadataRequest(name="model7"), timeout=TIMEOUT_S) == before
        assert scrape(server)["sluice_models_in_memory"] == 1


def read_resident_bytes(server):
    """The resident size of a server."""
    [size] = re.findall(r"^process_resident_memory_bytes (\S+)$", read_metrics(server), re.MULTILINE)
    return float(size)


def test_thousands_of_models_start_in_the_memory_of_one(transport, tmp_path):
    """Known and ready from the start, for a few KiB each; and each that is asked for is served."""
    alone, folder = tmp_path / "alone", tmp_path / "thousands"
    first = onnx_models.save(adder(0), alone, "model0", config="max_batch_size: 8")
    for number in range(THOUSANDS):
        version = folder / f"model{number}" / "1"
        version.mkdir(parents=True)
        os.link(first, version / "model.onnx")
        os.link(alone / "model0" / "config.pbtxt", version.parent / "config.pbtxt")
    with ServerProcess(alone, *LAZY) as server:
        base = read_resident_bytes(server)
    with ServerProcess(folder, *LAZY, "--memory-budget-bytes", 100_000) as server:
        assert read_resident_bytes(server) - base < THOUSANDS * 16 * 1024
        with Target(server.address).connect() as channel:
            stub = GRPCInferenceServiceStub(channel)
            index = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=TIMEOUT_S).models
            assert len(index) == THOUSANDS
            for number in range(0, THOUSANDS, THOUSANDS // 40):
                request = build_request(f"model{number}", {"input": np.full((1, 4), number)})
                reply = stub.ModelInfer(request, timeout=TIMEOUT_S)
                assert np.frombuffer(reply.raw_output_contents[0], np.int64).tolist() == [number] * 4
            assert scrape(server)["sluice_evictions_total"] > 30


SLOW_WARMUP = """max_batch_size: 1
model_warmup { count: 40 inputs { key: "input" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }"""


def test_caller_waits_for_a_load_no_longer_than_its_deadline(transport, tmp_path):
    """One that cannot wait hears so in time, and the next one finds the model; others are answered meanwhile."""
    onnx_models.save(onnx_models.slow(), tmp_path, "slow", config=SLOW_WARMUP)
    onnx_models.save(adder(1), tmp_path, "adder", config="max_batch_size: 8")
    with ServerProcess(tmp_path, *LAZY) as server, Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        row = build_request("slow", {"input": np.ones((1, 4), np.float32)})
        patient = stub.ModelInfer.future(row, timeout=TIMEOUT_S)
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(row, timeout=0.3)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 2
        assert find_wrong(stub.ModelInfer(make_request(3), timeout=TIMEOUT_S), 3) == ""
        assert not patient.done()
        assert patient.result().outputs[0].shape == [1, 4]
        await_true(lambda: scrape(server)["sluice_lazy_loads_total"] == 2)


def test_cancelled_caller_leaves_the_others_waiting(transport, tmp_path):
    """A stream that ends, and a call that is given up."""
    onnx_models.save(onnx_models.slow(), tmp_path, "slow", config=SLOW_WARMUP)
    with ServerProcess(tmp_path, *LAZY) as server, Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        row = build_request("slow", {"input": np.ones((1, 4), np.float32)})
        calls = [stub.ModelInfer.future(row, timeout=TIMEOUT_S) for _ in range(3)]
        calls[0].cancel()
        stream = stub.ModelStreamInfer(iter([row] * 5), timeout=TIMEOUT_S)
        abandoned = stub.ModelStreamInfer(iter([row] * 5), timeout=TIMEOUT_S)
        abandoned.cancel()
        assert len(list(stream)) == 5
        assert [call.result().outputs[0].shape for call in calls[1:]] == [[1, 4]] * 2


def test_model_that_cannot_be_loaded_answers_with_the_reason(transport, tmp_path):
    """From then on readiness and the index say it too."""
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(adder(1).SerializeToString()[:-9])
    with ServerProcess(tmp_path, *LAZY) as server, Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(3):
            with pytest.raises(grpc.RpcError, match="not ONNX or is cut off") as raised:
                stub.ModelInfer(build_request("broken", {"input": np.zeros((1, 4), np.int64)}), timeout=TIMEOUT_S)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stub.ModelReady(pb.ModelReadyRequest(name="broken"), timeout=TIMEOUT_S).ready
        [entry] = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
        assert entry.state == "UNAVAILABLE"
        assert "not ONNX" in entry.reason
        assert server.log.count('"state": "UNAVAILABLE"') == 1


def test_pinned_model_is_in_memory_when_the_server_is_ready(transport, hundreds):
    """And stays there while others come and go; a name without a folder is in the log."""
    options = ("--pinned-model", "model7", "--pinned-model", "nobody", "--memory-budget-bytes", 100_000)
    with ServerProcess(hundreds, *LAZY, *options) as server, Target(server.address).connect() as channel:
        assert server.await_event("model to load is not in the repository")["model"] == "nobody"
        stub = GRPCInferenceServiceStub(channel)
        for number in range(20):
            stub.ModelInfer(build_request(f"model{number}", {"input": np.zeros((1, 4), np.int64)}), timeout=TIMEOUT_S)
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
        assert "model7" in {entry.name for entry in index if not entry.reason}
        assert scrape(server)["sluice_evictions_total"] > 10


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
def test_promtool_finds_no_fault_with_metrics_of_lazy_loading(transport, hundreds):
    """Before any model is there, so that no metric has a name of Triton's but the machine's."""
    with ServerProcess(hundreds, *LAZY) as server:
        text = read_metrics(server)
    assert "sluice_evictions_total 0" in text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_sigterm_while_callers_wait_for_a_load_ends_the_server_in_time(transport, tmp_path):
    """They hear that it stops, as UNAVAILABLE, which a gateway tries elsewhere."""
    warmup = SLOW_WARMUP.replace("count: 40", "count: 100000")
    onnx_models.save(onnx_models.slow(), tmp_path, "slow", config=warmup)
    with ServerProcess(tmp_path, *LAZY, "--drain-timeout", "5") as server, Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer.future(build_request("slow", {"input": np.ones((1, 4), np.float32)}), timeout=TIMEOUT_S)
        time.sleep(0.5)
        assert not call.done()
        server.terminate()
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert call.details() == "the server is stopping"
        assert server.wait() == 0
