"""What NVIDIA's own client does to a server whose models it controls; test_changing_models runs it in another process.

The environment's ADDRESS says whom to call, REPOSITORY where the server's models lie, SPARE holds files of a model.
"""

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException

ADDRESS = os.environ["ADDRESS"]
REPOSITORY = Path(os.environ["REPOSITORY"])
SPARE = Path(os.environ["SPARE"])
OFFSET = 10**12


@pytest.fixture
def client():
    """Triton's synchronous client; the models are as they were before."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client
        client.unload_model("adder")


def infer(client, version="", model="adder"):
    """By how much a model's version adds, in multiples of OFFSET."""
    given = triton.InferInput("input", [1, 4], "INT64")
    given.set_data_from_numpy(np.ones((1, 4), np.int64))
    return (client.infer(model, [given], model_version=version).as_numpy("output")[0, 0] - 1) / OFFSET


def read_index(client):
    """State by name and version."""
    return {(one.name, one.version): one.state for one in client.get_model_repository_index().models}


def test_load_and_unload_as_in_tritons_example(client):
    """The steps of simple_grpc_model_control."""
    assert not client.is_model_ready("adder")
    client.load_model("adder")
    assert client.is_model_ready("adder")
    assert infer(client) == 2
    client.unload_model("adder")
    assert not client.is_model_ready("adder")
    with pytest.raises(InferenceServerException, match="failed to load"):
        client.load_model("wrong_model_name")


def test_index_tells_what_is_loaded(client):
    """As a message and as JSON."""
    assert read_index(client)["adder", "1"] == "UNAVAILABLE"
    entry = client.get_model_repository_index(as_json=True)["models"][0]
    assert (entry["name"], entry["state"], entry["reason"]) == ("adder", "UNAVAILABLE", "unloaded")
    client.load_model("adder")
    assert read_index(client)["adder", "2"] == "READY"


def test_unload_ends_inference_with_the_reason(client):
    """And a load brings it back."""
    client.load_model("adder")
    client.unload_model("adder", unload_dependents=True)
    with pytest.raises(InferenceServerException, match="model 'adder' is unavailable: unloaded"):
        infer(client)
    client.load_model("adder")
    assert infer(client) == 2


def test_load_with_config_overrides_the_file(client):
    """A policy that serves the first version only; the next load takes the repository's again."""
    client.load_model("adder", config=json.dumps({"version_policy": {"specific": {"versions": [1]}}}))
    assert infer(client) == 1
    with pytest.raises(InferenceServerException, match="'adder' version 2 is not found"):
        infer(client, "2")
    client.load_model("adder")
    assert infer(client) == 2


def test_load_with_labels_serves_under_them(client):
    """As model_version of every call that has one; the answer names the number."""
    labels = {"parameters": {"version_labels": {"string_value": "stable=1,canary=2"}}}
    client.load_model("adder", config=json.dumps(labels))
    assert (infer(client, "stable"), infer(client, "canary")) == (1, 2)
    assert client.is_model_ready("adder", "canary")
    assert client.get_model_metadata("adder", "stable").versions == ["1", "2"]
    with pytest.raises(InferenceServerException, match="'latest': model 'adder' has no such label"):
        infer(client, "latest")


def test_load_with_files_serves_them(client):
    """A model of which the repository knows nothing, and one in place of what it holds."""
    content = (SPARE / "adder" / "9" / "model.onnx").read_bytes()
    client.load_model("brought", config="{}", files={"file:9/model.onnx": content})
    assert infer(client, "9", "brought") == 9
    client.load_model("adder", config="{}", files={"file:7/model.onnx": content})
    assert read_index(client) == {("adder", "7"): "READY", ("brought", "9"): "READY", ("broken", "1"): "UNAVAILABLE"}
    client.unload_model("brought")
    client.load_model("adder")
    assert read_index(client) == {
        ("adder", "1"): "READY",
        ("adder", "2"): "READY",
        ("broken", "1"): "UNAVAILABLE",
    }


def test_load_that_fails_says_why_and_leaves_what_serves(client):
    """A client hears the reason in its exception, and goes on being served."""
    client.load_model("adder")
    for options, reason in (
        ({"config": "{"}, "is not the JSON of a ModelConfig"),
        ({"config": '{"max_batch_size": -1}'}, "max_batch_size: expected a number from 0"),
        ({"config": "{}", "files": {"file:1/model.onnx": b"garbage"}}, "not ONNX or is cut off"),
        ({"config": "{}", "files": {"file:../x/model.onnx": b"x"}}, "expected a path in the model's folder"),
        ({"config": "{}", "files": {"file:" + "A" * 256: b"x"}}, "expected a path in the model's folder"),
        ({"files": {"file:1/model.onnx": b"x"}}, "expected a configuration"),
    ):
        with pytest.raises(InferenceServerException, match=reason) as raised:
            client.load_model("adder", **options)
        assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert infer(client) == 2
    with pytest.raises(InferenceServerException, match=r"failed to load 'broken': version 1: .*cut off"):
        client.load_model("broken")


def test_asyncio_client_loads_and_unloads():
    """Many at a time take turns."""

    async def run():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            await asyncio.gather(*(client.load_model("adder") for _ in range(3)))
            assert await client.is_model_ready("adder")
            await client.unload_model("adder")
            assert not await client.is_model_ready("adder")

    asyncio.run(run())
