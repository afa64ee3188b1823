"""Ragged and padded batches on each transport, with NVIDIA's client, and what `sluice check` says of their models."""

import json

import onnx_models
import pytest
import uneven_models
from ensemble_folders import save_ensemble
from typer.testing import CliRunner

from service.cli import app
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

DELAY = "dynamic_batching { max_queue_delay_microseconds: 300000 }"
RAGGED_WARMUP = """model_warmup {
  name: "ragged" batch_size: 1
  inputs { key: "values" value { data_type: TYPE_FP32 dims: 7 random_data: true } }
}
"""
PADDED_WARMUP = """model_warmup {
  name: "padded" batch_size: 4
  inputs { key: "ids" value { data_type: TYPE_INT64 dims: 7 zero_data: true } }
  inputs { key: "mask" value { data_type: TYPE_FP32 dims: 7 zero_data: true } }
}
"""
PADDED = f"max_batch_size: 8\n{uneven_models.PADDING}\n"
CHAIN = """platform: "ensemble" max_batch_size: 8
input { name: "input" data_type: TYPE_FP32 dims: [-1] }
output { name: "output" data_type: TYPE_FP32 dims: [-1] }
ensemble_scheduling {
  step { model_name: "sums" model_version: -1
         input_map { key: "values" value: "input" } output_map { key: "doubled" value: "between" } }
  step { model_name: "sums" model_version: -1
         input_map { key: "values" value: "between" } output_map { key: "doubled" value: "output" } }
}
"""


@pytest.fixture(scope="module")
def uneven_repository(tmp_path_factory):
    """Models of both kinds, and an ensemble of one."""
    folder = tmp_path_factory.mktemp("uneven")
    sums, encoder = uneven_models.ragged_sums(), uneven_models.encoder()
    onnx_models.save(sums, folder, "sums", config=uneven_models.SUMS + DELAY + RAGGED_WARMUP)
    onnx_models.save(encoder, folder, "encoder", config=PADDED + DELAY + PADDED_WARMUP)
    onnx_models.save(encoder, folder, "remembered", config=PADDED + "response_cache { enable: true }")
    save_ensemble(folder, "chain", CHAIN)
    return folder


@pytest.mark.parametrize("inline", ["auto", "always"])
def test_tritonclient_shares_uneven_batches(transport, uneven_repository, inline):
    """Every check of uneven_checks passes; also where the thread that reads a request runs it."""
    with ServerProcess(uneven_repository, "--insecure", "--inline", inline) as server:
        run_checks("uneven_checks.py", TARGET=Target(server.address).to_json())


def test_check_takes_good_ones_and_refuses_others_by_their_field(uneven_repository, tmp_path):
    """As a server would, and shows what callers see."""
    assert check(uneven_repository) == {"chain": "", "encoder": "", "remembered": "", "sums": ""}
    sums, encoder = uneven_models.ragged_sums(), uneven_models.encoder()
    bad = {
        "source": (sums, uneven_models.SUMS.replace('source_input: "values"', 'source_input: "nobody"', 1)),
        "batches": (sums, uneven_models.SUMS.replace("max_batch_size: 8", "max_batch_size: 0")),
        "target": (sums, uneven_models.SUMS.replace('target_name: "edges"', 'target_name: "nobody"')),
        "padding": (encoder, 'max_batch_size: 8 parameters { key: "pad_inputs" value { string_value: "ids=0" } }'),
    }
    for name, (model, config) in bad.items():
        onnx_models.save(model, tmp_path, name, config=config)
    refused = check(tmp_path)
    assert "batch_input[0].source_input: expected an input that every request has" in refused["source"]
    assert "input 'values': allow_ragged_batch: expected max_batch_size of at least 1" in refused["batches"]
    assert "batch_input[0].target_name: expected an input of the model" in refused["target"]
    assert "parameters['pad_inputs']: expected 'mask' too" in refused["padding"]


def check(repository):
    """Why each model is refused; empty for one that loads."""
    result = CliRunner().invoke(app, ["check", str(repository), "--json"])
    rows = json.loads(result.stdout)
    assert result.exit_code == any(row["verdict"] == "refused" for row in rows)
    return {row["model"]: row.get("reason", "") for row in rows}
