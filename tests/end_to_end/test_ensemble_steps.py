"""Ensembles whose steps keep sequences, are cached, or refuse what would be late, over both transports."""

import contextlib
import json
import time

import grpc
import numpy as np
import onnx_models
import pytest
from google.rpc import error_details_pb2, status_pb2
from inference_messages import build_request, build_turn, decode_reply
from onnx import TensorProto
from typer.testing import CliRunner

from service.cli import app
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.ensemble_folders import describe_chain, save_ensemble

TIMEOUT_S = 60.0
MINUTE_US = 60_000_000
STATE = 'state { input_name: "state" output_name: "new_state" data_type: TYPE_INT64 dims: [2] }'
OLDEST = "oldest { max_candidate_sequences: 8 preferred_batch_size: [2] max_queue_delay_microseconds: 500 }"
# As kernels/service_time.pyx has it.
ENOUGH_RUNS = 16
BUSY_ITERATIONS = 500_000


def save_sum(folder, name, fields="", idle_us=MINUTE_US):
    """A model that adds up, with sequences by those fields."""
    config = f"max_batch_size: 8 sequence_batching {{ max_sequence_idle_microseconds: {idle_us} {fields} {STATE} }}"
    onnx_models.save(onnx_models.accumulator(), folder, name, config=config)


def save_chain(folder, name, *models, **options):
    """An ensemble of two columns of whole numbers."""
    save_ensemble(folder, name, describe_chain(*models, **{"datatype": "INT64", "columns": 2} | options))


@pytest.fixture(scope="session")
def step_repository(tmp_path_factory):
    """Models that keep sequences by each strategy, models with a cache, and ensembles of them."""
    folder = tmp_path_factory.mktemp("steps")
    onnx_models.save(onnx_models.identity(TensorProto.INT64, ("batch", 2)), folder, "whole", config="max_batch_size: 8")
    for name, fields in (("direct_sum", "direct {}"), ("oldest_sum", OLDEST), ("inner_sum", "")):
        save_sum(folder, name, fields)
    save_sum(folder, "hasty_sum", idle_us=50_000)
    save_chain(folder, "direct_chain", "whole", "direct_sum", "whole")
    save_chain(folder, "oldest_chain", "whole", "oldest_sum")
    save_chain(folder, "inner_chain", "whole", "inner_sum")
    save_chain(folder, "outer_chain", "whole", "inner_chain", "whole")
    save_chain(folder, "hasty_chain", "whole", "hasty_sum")
    cached = "max_batch_size: 8 response_cache { enable: true }"
    onnx_models.save(onnx_models.dice(), folder, "dice", config=cached)
    onnx_models.save(onnx_models.dice(), folder, "plain_dice", config="max_batch_size: 8")
    onnx_models.save(onnx_models.identity(), folder, "same", config="max_batch_size: 8")
    save_ensemble(folder, "stepping", describe_chain("same", "dice", "same"))
    save_ensemble(folder, "remembering", describe_chain("plain_dice", more="response_cache { enable: true }"))
    return folder


@pytest.fixture
def stub(transport, tmp_path):
    """Stubs of a server that serves what is in tmp_path by then: stub(*options)."""
    with contextlib.ExitStack() as opened:

        def start(*options):
            server = opened.enter_context(ServerProcess(tmp_path, "--insecure", *options))
            return GRPCInferenceServiceStub(opened.enter_context(Target(server.address).connect()))

        yield start


def add(stub, model, sequence, value, *, start=False, end=False):
    """The sum of a sequence after another number."""
    request = build_turn(model, {"input": np.array([[value, -value]], np.int64)}, sequence, start=start, end=end)
    reply = stub.ModelInfer(request, timeout=TIMEOUT_S)
    return int(decode_reply(reply.SerializeToString())["output"][0, 0])


@pytest.mark.parametrize("inline", ["auto", "always"])
def test_tritonclient_runs_ensembles_of_such_steps(transport, step_repository, inline):
    """Every check of triton_step_checks passes; also where the thread that reads a request runs it."""
    with ServerProcess(step_repository, "--insecure", "--inline", inline) as server:
        run_checks("triton_step_checks.py", TARGET=Target(server.address).to_json())


def test_check_loads_ensembles_of_such_steps(step_repository):
    """As the server does."""
    result = CliRunner().invoke(app, ["check", str(step_repository), "--json"])
    assert result.exit_code == 0, result.output
    assert {row["verdict"] for row in json.loads(result.stdout)} == {"loads"}


def test_check_refuses_a_cached_ensemble_that_keeps_sequences(tmp_path):
    """With the step's name."""
    save_sum(tmp_path, "sum")
    save_chain(tmp_path, "chain", "sum", more="response_cache { enable: true }")
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--json"])
    rows = {row["model"]: row for row in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert rows["sum"]["verdict"] == "loads"
    assert "it has a response_cache, and its step 'sum' keeps sequences" in json.dumps(rows["chain"])


def test_sequence_of_a_step_outlives_the_reload_of_its_model(stub, tmp_path):
    """It stays with the old edition, and new ones begin on the new one."""
    onnx_models.save(
        onnx_models.identity(TensorProto.INT64, ("batch", 2)), tmp_path, "whole", config="max_batch_size: 8"
    )
    save_sum(tmp_path, "sum")
    save_chain(tmp_path, "chain", "whole", "sum")
    stubs = stub("--model-control-mode", "explicit", "--load-model", "chain")
    assert add(stubs, "chain", 1, 1, start=True) == 1
    (tmp_path / "sum" / "config.pbtxt").write_text(
        (tmp_path / "sum" / "config.pbtxt").read_text().replace("max_batch_size: 8", "max_batch_size: 9")
    )
    loading = stubs.RepositoryModelLoad.future(pb.RepositoryModelLoadRequest(model_name="sum"), timeout=TIMEOUT_S)
    while stubs.ModelConfig(pb.ModelConfigRequest(name="sum"), timeout=TIMEOUT_S).config.max_batch_size == 8:
        pass
    assert add(stubs, "chain", 2, 10, start=True) == 10
    assert add(stubs, "chain", 1, 1) == 2
    assert add(stubs, "chain", 2, 10) == 20
    assert not loading.done()
    assert add(stubs, "chain", 1, 1, end=True) == 3
    loading.result()
    assert add(stubs, "chain", 2, 10, end=True) == 30


def test_call_that_is_cancelled_before_the_step_leaves_its_sequence(stub, tmp_path):
    """And of those that wait for it, one whose deadline passes does, too, and the other goes on from there."""
    config = "max_batch_size: 1 instance_group { count: 2 }"
    onnx_models.save(onnx_models.slow_by_value(), tmp_path, "slow", config=config)
    state = STATE.replace("INT64", "FP32").replace("[2]", "[4]")
    onnx_models.save(
        onnx_models.accumulator(TensorProto.FLOAT, ("batch", 4)),
        tmp_path,
        "sum",
        config=f"max_batch_size: 1 sequence_batching {{ max_sequence_idle_microseconds: {MINUTE_US} {state} }}",
    )
    onnx_models.save(onnx_models.identity(), tmp_path, "before", config="max_batch_size: 1")
    save_ensemble(tmp_path, "chain", describe_chain("before", "slow", "sum", max_batch_size=1))
    stubs = stub()

    def call(number, timeout_s=TIMEOUT_S, **flags):
        request = build_turn("chain", {"input": np.full((1, 4), number, np.float32)}, 1, **flags)
        return stubs.ModelInfer.future(request, timeout=timeout_s)

    def count(name):
        read = stubs.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=TIMEOUT_S).model_stats[0]
        return read.inference_stats.success.count, read.inference_stats.fail.count

    call(1, start=True).result()
    slow = call(2e7)
    while count("before")[0] < 2:
        pass
    late = call(10, timeout_s=0.5)
    while count("chain")[1] == 0:
        pass
    assert not slow.done()
    following = call(100)
    slow.cancel()
    reply = decode_reply(following.result().SerializeToString())
    assert reply["output"][0, 0] == 101
    until = time.monotonic() + TIMEOUT_S
    while (count("sum"), count("chain")) != ((2, 0), (2, 2)):
        assert time.monotonic() < until, (count("sum"), count("chain"))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("model", ["chain", "outer"])
def test_refusal_of_a_step_that_would_be_late_says_when_to_try_again(stub, tmp_path, model):
    """RESOURCE_EXHAUSTED, and a RetryInfo in google.rpc.Status, as of a call to the model."""
    onnx_models.save(onnx_models.slow_by_value(), tmp_path, "hasty", config="max_batch_size: 1")
    save_ensemble(tmp_path, "chain", describe_chain("hasty", max_batch_size=1))
    save_ensemble(tmp_path, "outer", describe_chain("chain", max_batch_size=1))
    stubs = stub()

    def make_request(name, number=1.0):
        return build_request(name, {"input": np.full((1, 4), number, np.float32)})

    for _ in range(ENOUGH_RUNS):
        stubs.ModelInfer(make_request("hasty", BUSY_ITERATIONS / 20), timeout=TIMEOUT_S)
    others = [stubs.ModelInfer.future(make_request("hasty", BUSY_ITERATIONS), timeout=TIMEOUT_S) for _ in range(60)]
    while True:
        # Until enough of them have come for it to be late.
        with pytest.raises(grpc.RpcError) as raised:
            stubs.ModelInfer(make_request(model), timeout=0.5)
        if raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            break
    for one in others:
        one.cancel()
    assert raised.value.details().startswith(f"in ensemble '{model}', step '")
    assert "step 'hasty': the request would be answered" in raised.value.details()
    details = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    told = status_pb2.Status.FromString(details)
    assert (told.code, told.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], raised.value.details())
    retry = error_details_pb2.RetryInfo()
    assert told.details[0].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
