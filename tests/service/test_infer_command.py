"""`sluice infer` and `sluice models` against a real server."""

import json

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image
from typer.testing import CliRunner

from service.cli import app
from service.client import Inference
from service.commands.infer import format_json
from tests.onnx_models import add_and_subtract, identity, newer_opset, save
from tests.served import serving


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server of a model of two inputs in two versions, of text, of four pixels, and of one that cannot serve."""
    folder = tmp_path_factory.mktemp("models")
    save(add_and_subtract(), folder, "pair", 1)
    save(add_and_subtract(), folder, "pair", 2)
    save(identity(TensorProto.STRING), folder, "text")
    save(identity(), folder, "pixels")
    save(newer_opset(), folder, "newer", 7)
    with serving(folder) as address:
        yield address


@pytest.fixture
def run(address):
    """Runs a command against that server; expects the exit status given."""

    def run_command(*arguments, status=0):
        result = CliRunner().invoke(app, [*map(str, arguments), "--url", address, "--insecure"])
        assert result.exit_code == status, result.output
        return result.output

    return run_command


def test_infer_prints_a_table_of_the_outputs(run):
    """Who answered, and each output with its datatype, shape and values."""
    assert run("infer", "pair", "-i", "a=[1, 2, 3]", "-i", "b=[[3, 2, 1]]", "--version", 1).splitlines() == [
        "pair version 1",
        "",
        "output      datatype  shape   values",
        "sum         FP32      [1, 3]  [[4., 4., 4.]]",
        "difference  FP32      [1, 3]  [[-2., 0., 2.]]",
    ]


def test_infer_prints_the_answer_as_json(run, tmp_path):
    """The protocol's own JSON form; the highest version serves who names none."""
    np.savez(tmp_path / "both.npz", a=np.ones((1, 3), np.float32), b=np.zeros((1, 3), np.float32))
    answer = json.loads(run("infer", "pair", "--npz", tmp_path / "both.npz", "--json"))
    assert (answer["model_name"], answer["model_version"]) == ("pair", "2")
    assert answer["outputs"][0] == {"name": "sum", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 1.0, 1.0]}


def test_infer_shows_text_as_text(run):
    """In the table and in JSON."""
    arguments = ("infer", "text", "-i", '["a", "é", "", "x=y"]')
    assert "['a', 'é', '', 'x=y']" in run(*arguments)
    assert json.loads(run(*arguments, "--json"))["outputs"][0]["data"] == ["a", "é", "", "x=y"]


def test_infer_reads_a_picture(run, tmp_path):
    """Two by two pixels are the four numbers of the model."""
    Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save(tmp_path / "picture.png")
    answer = json.loads(run("infer", "pixels", "--image", tmp_path / "picture.png", "--image-range", "0:5", "--json"))
    assert answer["outputs"][0]["data"] == [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing", "-i", "[1]"], 1, "NOT_FOUND"),
        (["newer", "-i", "[1]"], 1, "UNAVAILABLE"),
        (["pixels", "--version", "9", "-i", "[1]"], 1, "NOT_FOUND"),
        (["pixels"], 1, "input 'input': expected a value of FP32 [-1, 4], given none"),
        (["pixels", "-i", "[1, 2, 3]"], 1, "INVALID_ARGUMENT"),
        (["pixels", "-i", "[true, true, true, true]"], 1, "expected values of FP32"),
        (["pixels", "--image", "absent.png"], 1, "picture absent.png: No such file"),
        (["pixels", "--image", "x.png", "--image-range", "5"], 2, "BLACK:WHITE"),
        (["pixels", "--ca", "x.pem"], 2, "--insecure"),
    ],
)
def test_infer_that_cannot_be_says_why(run, arguments, status, message):
    """One line that names what is wrong, and a status for scripts."""
    assert message in run("infer", *arguments, status=status)


def test_models_prints_states_signatures_and_reasons(run):
    """Every version, and below the table why one does not serve."""
    lines = run("models").splitlines()
    assert lines[0].split() == ["model", "version", "state", "inputs", "outputs"]
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["newer", "7", "UNAVAILABLE"],
        ["pair", "1", "READY"],
        ["pair", "2", "READY"],
        ["pixels", "1", "READY"],
        ["text", "1", "READY"],
    ]
    assert "a FP32[-1, 3], b FP32[-1, 3]" in lines[2]
    assert lines[7].startswith("newer 7: ")
    assert "opset" in lines[7]


def test_models_prints_json_for_scripts(run):
    """The same, by name."""
    rows = {(row["name"], row["version"]): row for row in json.loads(run("models", "--json"))}
    assert rows["text", "1"]["inputs"] == [{"name": "input", "datatype": "BYTES", "shape": [-1, 4]}]
    assert rows["newer", "7"]["state"] == "UNAVAILABLE"
    assert "opset" in rows["newer", "7"]["reason"]


def test_models_without_a_server_says_so():
    """And where it was looked for."""
    result = CliRunner().invoke(app, ["models", "--url", "127.0.0.1:1", "--insecure", "--timeout", "5"])
    assert result.exit_code == 1
    assert "sluice models: 127.0.0.1:1: no connection" in result.output


def test_models_without_certificates_names_the_file(tmp_path):
    """As before the first start, or in another folder."""
    result = CliRunner().invoke(app, ["models", "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "gateway-ca.pem: No such file" in result.output


def test_format_json_has_text_for_what_json_has_no_number_for():
    """As the JSON form of protobuf has it; bytes that are no text show as escapes."""
    values = {"f": np.array([np.nan, np.inf, -np.inf, 1]), "b": np.array([b"\xff"], object)}
    whole = json.loads(format_json(Inference("m", "1", "", values, {"f": "FP64", "b": "BYTES"})))
    assert [output["data"] for output in whole["outputs"]] == [["NaN", "Infinity", "-Infinity", 1], ["\\xff"]]
