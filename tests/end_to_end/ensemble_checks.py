"""What NVIDIA's own client sees of ensembles; test_ensembles runs it in another process.

The environment's TARGET says whom to call.
"""

import asyncio
import functools
import json
import os
import queue
import uuid

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

ADDRESS = json.loads(os.environ["TARGET"])["address"]
OFFSET = 10**12
STRINGS = np.array([[b"", b"a\0b", "ü".encode(), b"x" * 9999]], dtype=object)


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_input(values, datatype="FP32", name="input"):
    """One input with raw contents."""
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def make_pair(a=5, b=2):
    """The inputs of `graph`: rows of the one and of the other number."""
    return [make_input(np.full((2, 4), value, np.float32), name=name) for name, value in (("a", a), ("b", b))]


def test_ensemble_answers_as_its_models_one_after_the_other(client):
    """Version 1 of `adder`, and then the highest."""
    answer = client.infer("chain", [make_input(np.ones((2, 4), np.int64), "INT64")], request_id="mine")
    assert answer.as_numpy("output").tolist() == [[1 + 3 * OFFSET] * 4] * 2
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("chain", "1", "mine")


def test_graph_gives_the_outputs_asked_for_in_their_order(client):
    """All of it by default."""
    everything = client.infer("graph", make_pair())
    assert {name: everything.as_numpy(name)[0, 0] for name in ("total", "double_a", "double_b")} == {
        "total": 7,
        "double_a": 10,
        "double_b": 4,
    }
    outputs = [triton.InferRequestedOutput(name) for name in ("double_b", "total")]
    answer = client.infer("graph", make_pair(1, 2), outputs=outputs)
    assert [output.name for output in answer.get_response().outputs] == ["double_b", "total"]
    assert answer.as_numpy("double_a") is None


def test_ensemble_passes_strings_on(client):
    """Every byte and length of them."""
    answer = client.infer("strings", [make_input(STRINGS, "BYTES")])
    assert answer.as_numpy("output").tolist() == STRINGS.tolist()


def test_ensemble_gives_classes_with_the_labels_of_its_step(client):
    """The largest of each row."""
    outputs = [triton.InferRequestedOutput("output", class_count=1)]
    answer = client.infer("named", [make_input(np.array([[1, 3, 2, 0]], np.float32))], outputs=outputs)
    assert answer.as_numpy("output").tolist() == [[b"3.000000:1:dog"]]


def test_ensemble_reads_and_writes_shared_memory(client):
    """An input of it, and an output of another step's."""
    name, key = "frames", f"/sluice-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region(name, key, 64)
    try:
        shm.set_shared_memory_region(handle, [np.arange(4, dtype=np.int64)[None]])
        client.register_system_shared_memory(name, key, 64)
        given, asked = triton.InferInput("input", [1, 4], "INT64"), triton.InferRequestedOutput("output")
        given.set_shared_memory(name, 32)
        asked.set_shared_memory(name, 32, 32)
        client.infer("chain", [given], outputs=[asked])
        made = shm.get_contents_as_numpy(handle, np.int64, [1, 4], 32)
        assert made.tolist() == [[value + 3 * OFFSET for value in range(4)]]
    finally:
        client.unregister_system_shared_memory(name)
        shm.destroy_shared_memory_region(handle)


def test_ensemble_tells_its_tensors_and_steps(client):
    """Metadata and configuration are those of a model of Triton's platform ensemble."""
    model = client.get_model_metadata("graph", as_json=True)
    assert model["platform"] == "ensemble"
    assert model["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": ["-1", "4"]}
    config = client.get_model_config("chain", as_json=True)["config"]
    assert config["platform"] == "ensemble"
    steps = config["ensemble_scheduling"]["step"]
    assert [(step["model_name"], step["model_version"]) for step in steps] == [("adder", "1"), ("adder", "-1")]


def read_counts(client, name, version="1"):
    """How often a version has succeeded, and its executions and rows."""
    read = client.get_inference_statistics(name, version).model_stats[0]
    return np.array([read.inference_stats.success.count, read.execution_count, read.inference_count])


def test_statistics_count_the_ensemble_and_each_step(client):
    """The ensemble as one execution of all rows of the request."""
    places = [("chain", "1"), ("adder", "1"), ("adder", "2")]
    before = [read_counts(client, *place) for place in places]
    client.infer("chain", [make_input(np.ones((3, 4), np.int64), "INT64")])
    after = [read_counts(client, *place) for place in places]
    assert [list(now - then) for now, then in zip(after, before, strict=True)] == [[1, 1, 3]] * 3
    read = client.get_inference_statistics("chain").model_stats[0].inference_stats
    assert read.compute_infer.ns > 0
    assert read.success.ns > read.compute_infer.ns


def test_failing_step_fails_its_request_with_the_steps_name(client):
    """And nobody else's."""
    for index, answer in ((3, 4.5), (99, None), (4, 6.0)):
        given = [make_input(np.array([index], np.int64), "INT64", "index")]
        if answer is not None:
            assert client.infer("picking", given).as_numpy("output").tolist() == [answer]
            continue
        with pytest.raises(InferenceServerException, match="in ensemble 'picking', step 'picker': ") as raised:
            client.infer("picking", given)
        assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_request_that_does_not_fit_the_ensemble_is_refused_in_its_name(client):
    """As of a model."""
    with pytest.raises(InferenceServerException, match="input 'input' has the wrong shape: expected") as raised:
        client.infer("chain", [make_input(np.zeros((1, 3), np.int64), "INT64")])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_ensemble_of_a_broken_step_is_unavailable_and_says_so(client):
    """In the index, in readiness and to callers."""
    reason = "its step 'nobody' is unknown"
    index = {entry.name: (entry.state, entry.reason) for entry in client.get_model_repository_index().models}
    assert index["lonely"] == ("UNAVAILABLE", reason)
    assert not client.is_model_ready("lonely")
    with pytest.raises(InferenceServerException, match=f"model 'lonely' is unavailable: {reason}") as raised:
        client.infer("lonely", [make_input(np.zeros((1, 4), np.float32))])
    assert raised.value.status() == "StatusCode.UNAVAILABLE"


def test_timeout_within_an_ensemble_is_a_deadline_exceeded(client):
    """While a step runs that takes longer."""
    with pytest.raises(InferenceServerException) as raised:
        client.infer("sluggish", [make_input(np.full((1, 4), 3e8, np.float32))], client_timeout=0.05)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_stream_and_callbacks_give_each_its_own(client):
    """Of ensembles as of models."""
    answers = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for nonce in range(20):
        client.async_stream_infer("chain", [make_input(np.full((1, 4), nonce), "INT64")], request_id=str(nonce))
    for nonce in range(20):
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.get_response().id == str(nonce)
        assert result.as_numpy("output")[0, 0] == nonce + 3 * OFFSET
    client.stop_stream()
    for nonce in range(20):
        call_back = functools.partial(lambda nonce, result, error: answers.put((nonce, result, error)), nonce)
        client.async_infer("chain", [make_input(np.full((1, 4), nonce), "INT64")], call_back)
    for _ in range(20):
        nonce, result, error = answers.get(timeout=30)
        assert error is None
        assert result.as_numpy("output")[0, 0] == nonce + 3 * OFFSET


def test_asyncio_client_gives_each_call_its_own():
    """Many at a time, of several ensembles."""

    async def ask_all():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            chains = (client.infer("chain", [make_input(np.full((1, 4), nonce), "INT64")]) for nonce in range(50))
            graphs = (client.infer("graph", make_pair(nonce, 1)) for nonce in range(50))
            return await asyncio.gather(*chains, *graphs)

    answers = asyncio.run(ask_all())
    assert [answer.as_numpy("output")[0, 0] for answer in answers[:50]] == [nonce + 3 * OFFSET for nonce in range(50)]
    assert [answer.as_numpy("double_a")[0, 0] for answer in answers[50:]] == [2 * nonce for nonce in range(50)]
