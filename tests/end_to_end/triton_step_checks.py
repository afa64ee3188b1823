"""What NVIDIA's own client sees of ensembles whose steps keep sequences or are cached; test_ensemble_steps runs it.

The environment's TARGET says whom to call.
"""

import asyncio
import json
import os
import queue
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException

ADDRESS = json.loads(os.environ["TARGET"])["address"]
TIMEOUT_S = 60
ENSEMBLES = ("direct_chain", "oldest_chain", "outer_chain")
STEPS = {"direct_chain": "direct_sum", "oldest_chain": "oldest_sum", "outer_chain": "inner_sum"}


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_input(value, rows=1):
    """A number to add, and its opposite."""
    values = np.array([[value, -value]] * rows, np.int64)
    tensor = triton.InferInput("input", list(values.shape), "INT64")
    tensor.set_data_from_numpy(values)
    return [tensor]


def add(client, model, sequence, value, *, start=False, end=False):
    """The sum of a sequence after another number."""
    answer = client.infer(model, make_input(value), sequence_id=sequence, sequence_start=start, sequence_end=end)
    return answer.as_numpy("output").tolist()


@pytest.mark.parametrize("model", ENSEMBLES)
def test_sequences_go_through_an_ensemble(client, model):
    """Numbers and texts as ids, interleaved, from start to end."""
    sequences = [31, 2**40, "31", "text"]
    for turn in range(4):
        for place, sequence in enumerate(sequences):
            total = (turn + 1) * 10**place
            made = add(client, model, sequence, 10**place, start=turn == 0, end=turn == 3)
            assert made == [[total, -total]]
    with pytest.raises(InferenceServerException, match=r"sequence 31 of model .* is not under way") as raised:
        add(client, model, 31, 1)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("model", ENSEMBLES)
def test_refusal_of_the_step_is_that_of_its_model(client, model):
    """Behind the names of ensemble and step; the sequence goes on."""
    add(client, model, 41, 1, start=True)
    for options, rows in (({}, 1), ({"sequence_id": 42}, 1), ({"sequence_id": 41}, 2)):
        texts = []
        for name in (STEPS[model], model):
            with pytest.raises(InferenceServerException) as raised:
                client.infer(name, make_input(1, rows), **options)
            assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
            texts.append(raised.value.message())
        assert texts[1].startswith(f"in ensemble '{model}', step '")
        assert texts[1].endswith(texts[0])
    assert add(client, model, 41, 10, end=True) == [[11, -11]]


@pytest.mark.parametrize("model", ENSEMBLES)
def test_stream_keeps_the_order_of_each_sequence(client, model):
    """Many in flight, of several sequences: each answer has the sum up to its own request."""
    answers, expected = queue.Queue(), {}
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for turn in range(20):
        for sequence in (51, "51", "fifty-two"):
            request_id = f"{sequence!r} {turn}"
            flags = {"sequence_id": sequence, "sequence_start": turn == 0, "sequence_end": turn == 19}
            client.async_stream_infer(model, make_input(turn), request_id=request_id, **flags)
            expected[request_id] = sum(range(turn + 1))
    found = {}
    for _ in range(len(expected)):
        result, error = answers.get(timeout=TIMEOUT_S)
        assert error is None
        found[result.get_response().id] = int(result.as_numpy("output")[0, 0])
    client.stop_stream()
    assert found == expected


def test_asyncio_client_has_sequences_side_by_side():
    """Each in its own order."""

    async def run(client, sequence):
        sums = []
        for turn in range(5):
            flags = {"sequence_id": sequence, "sequence_start": turn == 0, "sequence_end": turn == 4}
            answer = await client.infer("direct_chain", make_input(sequence), **flags)
            sums.append(int(answer.as_numpy("output")[0, 0]))
        return sums

    async def run_all():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            return await asyncio.gather(*(run(client, sequence) for sequence in range(61, 65)))

    for sequence, sums in zip(range(61, 65), asyncio.run(run_all()), strict=True):
        assert sums == [sequence * turn for turn in range(1, 6)]


def test_silent_sequence_of_a_step_is_over(client):
    """After its model's max_sequence_idle_microseconds."""
    add(client, "hasty_chain", 71, 1, start=True)
    with pytest.raises(InferenceServerException, match="sequence 71 of model 'hasty_sum' is not under way"):
        add_slowly(client, "hasty_chain", 71)


def add_slowly(client, model, sequence):
    """Add to a sequence for as long as it is under way, each time after a silence that is longer than it may be."""
    for _ in range(TIMEOUT_S):
        time.sleep(0.5)
        add(client, model, sequence, 1)


def count_cache(client, model):
    """Hits, misses, successes and runs of a model."""
    read = client.get_inference_statistics(model).model_stats[0]
    stats = read.inference_stats
    return [stats.cache_hit.count, stats.cache_miss.count, stats.success.count, read.execution_count]


def ask(client, model, number):
    """The output of a model for a row of one number."""
    tensor = triton.InferInput("input", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), number, np.float32))
    return client.infer(model, [tensor]).as_numpy("output").tobytes()


def test_cached_step_is_answered_by_what_it_has_answered(client):
    """And counted with its model; the ensemble itself runs each time."""
    before = count_cache(client, "dice"), count_cache(client, "stepping")
    assert len({ask(client, "stepping", 1) for _ in range(3)}) == 1
    assert ask(client, "stepping", 2) != ask(client, "stepping", 1)
    after = count_cache(client, "dice"), count_cache(client, "stepping")
    assert np.subtract(after, before).tolist() == [[3, 2, 5, 2], [0, 0, 5, 5]]


def test_cached_ensemble_is_answered_by_what_it_has_answered(client):
    """None of its steps is asked again."""
    before = count_cache(client, "plain_dice"), count_cache(client, "remembering")
    assert len({ask(client, "remembering", 1) for _ in range(3)}) == 1
    after = count_cache(client, "plain_dice"), count_cache(client, "remembering")
    assert np.subtract(after, before).tolist() == [[0, 0, 1, 1], [2, 1, 3, 1]]
    config = client.get_model_config("remembering", as_json=True)["config"]
    assert config["response_cache"] == {"enable": True}
