"""What NVIDIA's own client sees of models whose batches are ragged or padded; test_uneven_batches runs it."""

import asyncio
import json
import os
import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ADDRESS = json.loads(os.environ["TARGET"])["address"]
TIMEOUT_S = 60
LENGTHS = (3, 1, 4, 5, 2)


@pytest.fixture
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_inputs(**arrays):
    """Inputs of a request."""
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def make_values(length):
    """Numbers of one row, which no other length has."""
    return (100 * length + np.arange(length, dtype=np.float32))[None]


def make_texts(length):
    """Ids of one row and a mask that leaves all but the first."""
    ids = (100 * length + np.arange(length))[None]
    mask = np.ones((1, length), np.float32)
    mask[:, :1] = 0
    return {"ids": ids, "mask": mask}


def check_sums(length, answer):
    """The sum of one's own elements, and their doubles."""
    assert answer.as_numpy("output").tolist() == [[make_values(length).sum()]]
    np.testing.assert_array_equal(answer.as_numpy("doubled"), 2 * make_values(length))


def check_encoded(length, answer):
    """What the model makes of one request alone."""
    ids = make_texts(length)["ids"]
    np.testing.assert_array_equal(answer.as_numpy("tokens"), ids + 1)
    np.testing.assert_array_equal(answer.as_numpy("pairs"), ids[:, :, None] * ids[:, None, :])
    assert answer.as_numpy("pooled").tolist() == [ids[:, 1:].sum()]


CALLS = {
    "sums": (lambda length: make_inputs(values=make_values(length)), check_sums),
    "encoder": (lambda length: make_inputs(**make_texts(length)), check_encoded),
}


def count_runs(client, model):
    """Runs of a model, and requests that were answered, so far."""
    [found] = client.get_inference_statistics(model).model_stats
    return found.execution_count, found.inference_count


@pytest.mark.parametrize("model", CALLS)
def test_callers_of_different_lengths_share_runs(client, model):
    """All at once: a few runs, and everybody's own answer."""
    make, check = CALLS[model]
    before = count_runs(client, model)
    with ThreadPoolExecutor(len(LENGTHS)) as threads:
        answers = list(threads.map(lambda length: client.infer(model, make(length)), LENGTHS))
    for length, answer in zip(LENGTHS, answers, strict=True):
        check(length, answer)
    runs, requests = (now - then for now, then in zip(count_runs(client, model), before, strict=True))
    assert requests == len(LENGTHS)
    assert runs < len(LENGTHS)


@pytest.mark.parametrize("model", CALLS)
def test_stream_carries_different_lengths(client, model):
    """Answers by their id, whatever they were batched with."""
    make, check = CALLS[model]
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for turn in range(4):
        for length in LENGTHS:
            client.async_stream_infer(model, make(length), request_id=f"{length} {turn}")
    found = {}
    for _ in range(4 * len(LENGTHS)):
        result, error = answers.get(timeout=TIMEOUT_S)
        assert error is None
        found[result.get_response().id] = result
    client.stop_stream()
    for request_id, result in found.items():
        check(int(request_id.split()[0]), result)
    assert len(found) == 4 * len(LENGTHS)


@pytest.mark.parametrize("model", CALLS)
def test_asyncio_client_gets_its_own(model):
    """As the others."""
    make, check = CALLS[model]

    async def call_all():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            return await asyncio.gather(*(client.infer(model, make(length)) for length in LENGTHS))

    for length, answer in zip(LENGTHS, asyncio.run(call_all()), strict=True):
        check(length, answer)


def test_metadata_and_configuration_are_triton_s(client):
    """Callers see rows; the configuration shows what makes the model's inputs of them."""
    metadata = client.get_model_metadata("sums")
    assert [(tensor.name, list(tensor.shape)) for tensor in metadata.inputs] == [("values", [-1, -1])]
    assert [(tensor.name, list(tensor.shape)) for tensor in metadata.outputs] == [
        ("output", [-1, 1]),
        ("doubled", [-1, -1]),
    ]
    config = client.get_model_config("sums").config
    assert [(tensor.name, tensor.allow_ragged_batch) for tensor in config.input] == [("values", True)]
    [made] = config.batch_input
    assert (list(made.target_name), list(made.source_input)) == (["edges"], ["values"])
    assert made.kind == type(made).BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO
    assert [list(given.target_name) for given in config.batch_output] == [["doubled"]]
    config = client.get_model_config("encoder").config
    assert config.parameters["pad_inputs"].string_value == "ids=-1, mask=0"


def test_what_the_server_makes_is_not_the_callers_to_give(client):
    """As any input that there is not."""
    inputs = make_inputs(values=make_values(2), edges=np.array([0, 2], np.int32))
    with pytest.raises(InferenceServerException, match="input 'edges' is unknown; the model has 'values'"):
        client.infer("sums", inputs)


def test_inputs_of_one_length_must_agree(client):
    """Or they would be padded as if they did."""
    inputs = make_inputs(ids=np.zeros((1, 3), np.int64), mask=np.ones((1, 2), np.float32))
    with pytest.raises(InferenceServerException, match="input 'mask' has 2 elements in dimension 1; expected 3"):
        client.infer("encoder", inputs)


def test_cached_answer_has_its_own_length(client):
    """The same request again is answered without a run."""
    before = count_runs(client, "remembered")
    for _ in range(3):
        for length in LENGTHS:
            check_encoded(length, client.infer("remembered", make_inputs(**make_texts(length))))
    assert count_runs(client, "remembered")[0] - before[0] == len(LENGTHS)


def test_ensemble_of_both_gives_each_its_own(client):
    """One step is ragged; the lengths of different callers go through it together."""
    with ThreadPoolExecutor(len(LENGTHS)) as threads:
        answers = threads.map(lambda length: client.infer("chain", make_inputs(input=make_values(length))), LENGTHS)
        for length, answer in zip(LENGTHS, answers, strict=True):
            np.testing.assert_array_equal(answer.as_numpy("output"), 4 * make_values(length))
