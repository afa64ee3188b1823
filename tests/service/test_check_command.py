"""`sluice check`: what a server would make of a repository, and whether a pipeline may go on."""

import json

import pytest
from ensemble_folders import describe_chain, save_ensemble
from onnx_models import identity, newer_opset, save, tiny
from typer.testing import CliRunner

from service.cli import app

LABELS = 'parameters { key: "version_labels" value { string_value: "stable=2" } }'


def check(*arguments):
    """Run the command; exit code and output."""
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.fixture
def whole(tmp_path):
    """A repository in which nothing is wrong."""
    for version in (1, 2):
        save(tiny(), tmp_path, "tiny", version, config=f"version_policy {{ latest {{}} }} {LABELS}")
    save(identity(), tmp_path, "echo", config='max_batch_size: 3 metric_tags { key: "a" value: "b" }')
    return tmp_path


def test_check_of_whole_repository_shows_what_loads_and_ends_with_zero(whole):
    """Versions that the policy leaves out are no fault, and fields without effect are named."""
    code, output = check(whole)
    rows = [line.split()[:5] for line in output.splitlines()]
    assert code == 0
    assert rows[1:4] == [
        ["echo", "1", "loads", "-", "3"],
        ["tiny", "1", "not", "served", "-"],
        ["tiny", "2", "loads", "stable", "64"],
    ]
    assert "input FP32[-1, 16]" in output
    assert "echo 1: metric_tags: no effect" in output


def test_check_of_broken_versions_says_why_and_ends_with_one(whole):
    """Every way of being refused, while the others are looked at all the same."""
    save(newer_opset(), whole, "newer", 3)
    save(identity(), whole, "typo", config="max_batch_sizes: 3")
    warmup = 'model_warmup { inputs { key: "input" value { data_type: TYPE_FP32 dims: 5 zero_data: true } } }'
    save(identity(), whole, "cold", config=warmup)
    (whole / "empty").mkdir()
    code, output = check(whole, "--json")
    rows = {(row["model"], row["version"]): row for row in json.loads(output)}
    assert code == 1
    refused = {key: row["reason"] for key, row in rows.items() if row["verdict"] == "refused"}
    assert refused.keys() == {("newer", 3), ("typo", 1), ("cold", 1), ("empty", None)}
    assert "opset" in refused["newer", 3]
    assert "max_batch_sizes" in refused["typo", 1]
    assert "model_warmup '0': input 'input' has the wrong shape" in refused["cold", 1]
    assert "version number" in refused["empty", None]
    assert rows["echo", 1]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert str(whole) not in output


def test_check_of_missing_repository_ends_with_one(tmp_path):
    """And one line."""
    code, output = check(tmp_path / "none")
    assert code == 1
    assert "sluice check: model repository" in output


def test_check_of_empty_repository_says_so(tmp_path):
    """Nothing is refused."""
    assert check(tmp_path) == (0, "no models\n")


def test_check_of_ensembles_tells_which_would_run(whole):
    """With the steps that they would find; a step within one that is refused is named."""
    save_ensemble(whole, "chain", describe_chain("echo", "inner", max_batch_size=3))
    save_ensemble(whole, "inner", describe_chain("echo", max_batch_size=3))
    save_ensemble(whole, "lonely", describe_chain("nobody"))
    save_ensemble(whole, "misfit", describe_chain("tiny"))
    code, output = check(whole, "--json")
    rows = {row["model"]: row for row in json.loads(output)}
    assert code == 1
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "chain": "loads",
        "echo": "loads",
        "inner": "loads",
        "lonely": "refused",
        "misfit": "refused",
        "tiny": "loads",
    }
    assert rows["chain"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert rows["lonely"]["reason"] == "its step 'nobody' is unknown"
    assert "expected [-1, 16]" in rows["misfit"]["reason"]
