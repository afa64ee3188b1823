"""Models that keep sequences, on each transport: with NVIDIA's client, and while their versions are exchanged."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_turn, read_raw
from onnx import TensorProto
from typer.testing import CliRunner

from service.cli import app
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 60.0
MINUTE_US = 60_000_000
STATE = 'state { input_name: "state" output_name: "new_state" data_type: TYPE_INT64 dims: [2] %s }'
FROM_FILE = 'initial_state { name: "first" data_type: TYPE_INT64 dims: [2] data_file: "thousand" }'
CONTROLS = "".join(
    f'control_input {{ name: "{name}" control {{ kind: CONTROL_SEQUENCE_{name.upper()} fp32_false_true: [-1, 1] }} }}'
    for name in ("start", "ready", "end")
)
ID_CONTROL = 'control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }'
WARMUP = """model_warmup {
  name: "first" batch_size: 1
  inputs { key: "input" value { data_type: TYPE_INT64 dims: 2 random_data: true } }
  inputs { key: "state" value { data_type: TYPE_INT64 dims: 2 zero_data: true } }
}
"""
WITNESS_WARMUP = """model_warmup {
  name: "first"
  inputs { key: "input" value { data_type: TYPE_FP32 dims: 1 random_data: true } }
}
"""


def write_config(batch, fields, idle_us=MINUTE_US):
    """A configuration of a model that keeps sequences."""
    return f"max_batch_size: {batch}\nsequence_batching {{ max_sequence_idle_microseconds: {idle_us} {fields} }}\n"


def save_sum(folder, name, config, shape=("batch", 2)):
    """A model that adds up."""
    onnx_models.save(onnx_models.accumulator(shape=shape), folder, name, config=config)


def save_thousand(folder, name):
    """The first state of a model, as its file."""
    (folder / name / "initial_state").mkdir(parents=True, exist_ok=True)
    (folder / name / "initial_state" / "thousand").write_bytes(np.array([1000, 1000], np.int64).tobytes())


@pytest.fixture(scope="session")
def sequence_repository(tmp_path_factory):
    """Every way to keep sequences."""
    folder = tmp_path_factory.mktemp("sequences")
    save_sum(folder, "direct_sum", write_config(4, STATE % "") + WARMUP)
    oldest = "oldest { max_candidate_sequences: 8 preferred_batch_size: [2] max_queue_delay_microseconds: 500 }"
    save_sum(folder, "oldest_sum", write_config(4, f"{oldest} {STATE % ''}"))
    save_sum(folder, "single_sum", write_config(1, f"direct {{ }} {STATE % ''}"))
    save_sum(folder, "hasty_sum", write_config(1, STATE % "initial_state { zero_data: true }", idle_us=50_000))
    save_sum(folder, "whole_sum", write_config(0, f"oldest {{ max_candidate_sequences: 9 }} {STATE % FROM_FILE}"), (2,))
    save_thousand(folder, "whole_sum")
    witness = onnx_models.control_witness(TensorProto.FLOAT, TensorProto.STRING)
    onnx_models.save(witness, folder, "witness", config=write_config(8, CONTROLS + ID_CONTROL) + WITNESS_WARMUP)
    return folder


@pytest.mark.parametrize("inline", ["auto", "always"])
def test_tritonclient_keeps_sequences(transport, sequence_repository, inline):
    """Every check of triton_sequence_checks passes; also where the thread that reads a request runs it."""
    with ServerProcess(sequence_repository, "--insecure", "--inline", inline) as server:
        run_checks("triton_sequence_checks.py", TARGET=Target(server.address).to_json())


def test_check_shows_what_callers_see_of_models_with_sequences(sequence_repository):
    """And loads each of them as a server would."""
    result = CliRunner().invoke(app, ["check", str(sequence_repository), "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["model"]: row for row in json.loads(result.stdout)}
    assert {row["verdict"] for row in rows.values()} == {"loads"}
    assert [tensor["name"] for tensor in rows["direct_sum"]["inputs"] + rows["witness"]["inputs"]] == ["input"] * 2


def call_add(stub, sequence, value, **flags):
    """The sum of a sequence of `direct_sum` after another number."""
    request = build_turn("direct_sum", {"input": np.array([[value, value]], np.int64)}, sequence, **flags)
    reply = stub.ModelInfer(request, timeout=TIMEOUT_S)
    return int(read_raw(reply.raw_output_contents[0], "INT64", (2,))[0])


def refuse_start(stub):
    """Why a sequence cannot be begun; empty when it can."""
    try:
        call_add(stub, 2, 1, start=True, end=True)
    except grpc.RpcError as error:
        return error.details()
    return ""


def test_sequence_ends_on_the_version_on_which_it_began(transport, tmp_path):
    """A load puts another edition in place meanwhile, and has come to its end when the sequence has."""
    save_sum(tmp_path, "direct_sum", write_config(4, STATE % ""))
    options = ("--insecure", "--model-control-mode", "explicit", "--load-model", "*")
    with ServerProcess(tmp_path, *options) as server, Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert call_add(stub, 1, 1, start=True) == 1
        save_thousand(tmp_path, "direct_sum")
        save_sum(tmp_path, "direct_sum", write_config(4, STATE % FROM_FILE))
        with ThreadPoolExecutor(1) as threads:
            request = pb.RepositoryModelLoadRequest(model_name="direct_sum")
            loading = threads.submit(stub.RepositoryModelLoad, request, timeout=TIMEOUT_S)
            while call_add(stub, 2, 1, start=True, end=True) == 1:
                assert not loading.done()
            assert call_add(stub, 1, 1) == 2
            assert call_add(stub, "new", 1, start=True) == 1001
            assert not loading.done()
            assert call_add(stub, 1, 1, end=True) == 3
            loading.result()
        assert call_add(stub, "new", 1) == 1002


def test_sequence_outlives_the_unload_of_its_model_until_it_ends(transport, tmp_path):
    """Nobody begins another; the unload is over when the last one is."""
    save_sum(tmp_path, "direct_sum", write_config(4, STATE % ""))
    options = ("--insecure", "--model-control-mode", "explicit", "--load-model", "*")
    with ServerProcess(tmp_path, *options) as server, Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert call_add(stub, 1, 1, start=True) == 1
        with ThreadPoolExecutor(1) as threads:
            request = pb.RepositoryModelUnloadRequest(model_name="direct_sum")
            unloading = threads.submit(stub.RepositoryModelUnload, request, timeout=TIMEOUT_S)
            while not (reason := refuse_start(stub)):
                pass
            assert reason == "model 'direct_sum' is unavailable: unloaded"
            assert call_add(stub, 1, 1) == 2
            assert not unloading.done()
            assert call_add(stub, 1, 1, end=True) == 3
            unloading.result()
