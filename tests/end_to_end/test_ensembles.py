"""Ensembles, over both transports: what clients see of them, and what becomes of them when models come and go."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_request, decode_reply

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.models import LABELLED, VERSIONS, adder
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.ensemble_folders import describe_chain, describe_tensor, save_ensemble

CHECKS = Path(__file__).with_name("ensemble_checks.py")
EXPLICIT = ("--insecure", "--model-control-mode", "explicit")
POLL = ("--insecure", "--model-control-mode", "poll", "--repository-poll-secs", "0.1")
TIMEOUT_S = 60.0
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
GRAPH = f"""platform: "ensemble" max_batch_size: 8
input {{ {describe_tensor("a")} }} input {{ {describe_tensor("b")} }}
output {{ {describe_tensor("total")} }}
output {{ {describe_tensor("double_a")} }} output {{ {describe_tensor("double_b")} }}
ensemble_scheduling {{
  step {{ model_name: "sums" model_version: -1
    input_map {{ key: "a" value: "total" }} input_map {{ key: "b" value: "between" }}
    output_map {{ key: "sum" value: "double_a" }} output_map {{ key: "difference" value: "double_b" }} }}
  step {{ model_name: "sums" model_version: 1
    input_map {{ key: "a" value: "a" }} input_map {{ key: "b" value: "b" }}
    output_map {{ key: "sum" value: "total" }} output_map {{ key: "difference" value: "between" }} }}
}}"""
PICKING = """platform: "ensemble" max_batch_size: 8
input { name: "index" data_type: TYPE_INT64 dims: 1 }
output { name: "output" data_type: TYPE_FP32 dims: 1 }
ensemble_scheduling { step { model_name: "picker" model_version: -1
    input_map { key: "index" value: "index" } output_map { key: "output" value: "output" } } }"""


def write_ensembles(folder):
    """Models and ensembles of them; of these `lonely` lacks a step."""
    for version in VERSIONS:
        onnx_models.save(adder(version), folder, "adder", version, "max_batch_size: 8")
    onnx_models.save(onnx_models.add_and_subtract(4), folder, "sums", config="max_batch_size: 8")
    onnx_models.save(onnx_models.identity(onnx_models.ELEMENT_TYPES["BYTES"]), folder, "texts")
    onnx_models.save(onnx_models.identity(), folder, "labelled", config=LABELLED)
    (folder / "labelled" / "labels.txt").write_text("cat\ndog\nbird\ncow\n")
    onnx_models.save(onnx_models.picker(), folder, "picker")
    onnx_models.save(onnx_models.slow_by_value(), folder, "slow")
    chain = describe_chain("adder", "adder", datatype="INT64").replace("model_version: -1", "model_version: 1", 1)
    save_ensemble(folder, "chain", chain)
    save_ensemble(folder, "graph", GRAPH)
    save_ensemble(folder, "strings", describe_chain("texts", "texts", datatype="STRING"))
    save_ensemble(folder, "named", describe_chain("labelled", "labelled"))
    save_ensemble(folder, "picking", PICKING.replace("max_batch_size: 8", "").replace("dims: 1", "dims: -1"))
    save_ensemble(folder, "sluggish", describe_chain("slow", "slow"))
    save_ensemble(folder, "lonely", describe_chain("nobody"))


def connect(server):
    """A channel to a server."""
    return Target(server.address).connect()


def read_states(stub):
    """{name: state}, of models of one version."""
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_S)
    return {entry.name: entry.state for entry in index.models}


def await_states(stub, expected):
    """Return once the index is as expected."""
    until = time.monotonic() + TIMEOUT_S
    while (states := read_states(stub)) != expected:
        assert time.monotonic() < until, states
        time.sleep(0.02)


def infer(stub, model, values=ROWS):
    """The only output of a model or ensemble."""
    reply = stub.ModelInfer(build_request(model, {"input": values}), timeout=TIMEOUT_S)
    [output] = decode_reply(reply.SerializeToString()).values()
    return output


def test_tritonclient_runs_ensembles(transport, tmp_path):
    """Every check of ensemble_checks passes."""
    write_ensembles(tmp_path)
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts=", str(CHECKS)]
    with ServerProcess(tmp_path, "--insecure") as server:
        environment = os.environ | {"TARGET": Target(server.address).to_json()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_load_and_unload_of_an_ensemble_take_its_steps_along(transport, tmp_path):
    """As Triton's clients expect it: with unload_dependents its steps go too."""
    onnx_models.save(onnx_models.identity(), tmp_path, "echo")
    save_ensemble(tmp_path, "twice", describe_chain("echo", "echo"))
    with ServerProcess(tmp_path, *EXPLICIT) as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for with_steps in (False, True):
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="twice"), timeout=TIMEOUT_S)
            assert read_states(stub) == {"echo": "READY", "twice": "READY"}
            np.testing.assert_array_equal(infer(stub, "twice"), ROWS)
            request = pb.RepositoryModelUnloadRequest(model_name="twice")
            request.parameters["unload_dependents"].bool_param = with_steps
            stub.RepositoryModelUnload(request, timeout=TIMEOUT_S)
            assert read_states(stub) == {"echo": "UNAVAILABLE" if with_steps else "READY", "twice": "UNAVAILABLE"}


def test_poll_follows_the_models_of_an_ensemble(transport, tmp_path):
    """A step that comes, goes and comes back as another, while calls go on."""
    save_ensemble(tmp_path, "twice", describe_chain("echo", "echo"))
    with ServerProcess(tmp_path, *POLL) as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert read_states(stub) == {"twice": "UNAVAILABLE"}
        onnx_models.save(onnx_models.identity(), tmp_path, "echo")
        await_states(stub, {"echo": "READY", "twice": "READY"})
        np.testing.assert_array_equal(infer(stub, "twice"), ROWS)
        onnx_models.save(onnx_models.identity(shape=("batch", 5)), tmp_path, "echo")
        await_states(stub, {"echo": "READY", "twice": "UNAVAILABLE"})
        with pytest.raises(grpc.RpcError, match=r"has shape \[-1, 4\]; expected \[-1, 5\]") as raised:
            infer(stub, "twice")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        onnx_models.save(onnx_models.identity(), tmp_path, "echo")
        await_states(stub, {"echo": "READY", "twice": "READY"})
        np.testing.assert_array_equal(infer(stub, "twice"), ROWS)


def test_reload_of_a_step_fails_no_call_of_the_ensemble(transport, tmp_path):
    """A call ends with the edition that it began with."""
    onnx_models.save(onnx_models.identity(), tmp_path, "echo", config="max_batch_size: 8")
    save_ensemble(tmp_path, "thrice", describe_chain("echo", "echo", "echo"))
    with ServerProcess(tmp_path, *EXPLICIT, "--load-model", "thrice") as server, connect(server) as channel:
        stub, stopped, answered = GRPCInferenceServiceStub(channel), threading.Event(), []

        def call():
            while not stopped.is_set():
                values = ROWS + len(answered)
                np.testing.assert_array_equal(infer(stub, "thrice", values), values)
                answered.append(1)

        caller = threading.Thread(target=call)
        caller.start()
        request = pb.RepositoryModelLoadRequest(model_name="echo")
        for size in (4, 8) * 5:
            request.parameters[
                "config"
            ].string_param = f'{{"max_batch_size": 8, "instance_group": [{{"count": {size}}}]}}'
            stub.RepositoryModelLoad(request, timeout=TIMEOUT_S)
        before = len(answered)
        while len(answered) < before + 10 and caller.is_alive():
            time.sleep(0.01)
        stopped.set()
        caller.join()
    assert len(answered) >= before + 10


def test_cancelled_call_ends_the_ensembles_run(transport, tmp_path):
    """What runs is dropped, and what comes after it is not begun."""
    for name, model in (
        ("before", onnx_models.identity()),
        ("slow", onnx_models.slow(1_000_000)),
        ("after", onnx_models.identity()),
    ):
        onnx_models.save(model, tmp_path, name, config="max_batch_size: 8")
    save_ensemble(tmp_path, "sluggish", describe_chain("before", "slow", "after"))
    with ServerProcess(tmp_path, "--insecure") as server, connect(server) as channel:
        stub = GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer.future(build_request("sluggish", {"input": ROWS}), timeout=TIMEOUT_S)
        await_ends(stub, "before", (1, 0))
        call.cancel()
        await_ends(stub, "sluggish", (0, 1))
        assert [count_ends(stub, name) for name in ("before", "slow", "after")] == [(1, 0), (0, 1), (0, 0)]
        np.testing.assert_array_equal(infer(stub, "sluggish"), ROWS)


def count_ends(stub, name):
    """How many requests of a model succeeded and failed."""
    read = stub.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=TIMEOUT_S).model_stats[0].inference_stats
    return read.success.count, read.fail.count


def await_ends(stub, name, expected):
    """Return once as many have."""
    until = time.monotonic() + TIMEOUT_S
    while (counts := count_ends(stub, name)) != expected:
        assert time.monotonic() < until, counts
