"""What NVIDIA's own client sees of models that keep sequences; run as triton_checks is, by test_sequence_models."""

import asyncio
import json
import os
import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException

ADDRESS = json.loads(os.environ["TARGET"])["address"]
TIMEOUT_S = 60
SUMS = ("direct_sum", "oldest_sum", "whole_sum")


@pytest.fixture
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_inputs(value, model="direct_sum"):
    """A number to add; `whole_sum` has no batch."""
    values = np.array([value, -value], np.int64)
    values = values if model == "whole_sum" else values[None]
    tensor = triton.InferInput("input", list(values.shape), "INT64")
    tensor.set_data_from_numpy(values)
    return [tensor]


def add(client, sequence, value, model="direct_sum", **flags):
    """The sum of a sequence after another number."""
    flags = {f"sequence_{name}": flag for name, flag in flags.items()}
    answer = client.infer(model, make_inputs(value, model), sequence_id=sequence, **flags)
    return int(answer.as_numpy("output").ravel()[0])


@pytest.mark.parametrize("model", SUMS)
def test_sequences_add_up_each_for_itself(client, model):
    """Numbers and texts as ids, interleaved; `whole_sum` begins with 1000."""
    sequences = [11, 2**40, "11", "text"]
    first = 1000 if model == "whole_sum" else 0
    for turn in range(4):
        for place, sequence in enumerate(sequences):
            total = add(client, sequence, 10**place, model, start=turn == 0, end=turn == 3)
            assert total == first + (turn + 1) * 10**place
    with pytest.raises(InferenceServerException, match=f"sequence 11 of model '{model}' is not under way"):
        add(client, 11, 1, model)


@pytest.mark.parametrize("model", SUMS)
def test_stream_carries_sequences(client, model):
    """Many in flight, of several sequences: each answer has the sum up to its own request."""
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    expected, first = {}, 1000 if model == "whole_sum" else 0
    for turn in range(20):
        for sequence in (21, "21", "twenty-two"):
            request_id = f"{sequence!r} {turn}"
            client.async_stream_infer(
                model,
                make_inputs(turn, model),
                request_id=request_id,
                sequence_id=sequence,
                sequence_start=turn == 0,
                sequence_end=turn == 19,
            )
            expected[request_id] = first + sum(range(turn + 1))
    client.async_stream_infer(model, make_inputs(1, model), request_id="unknown", sequence_id=21)
    found = {}
    for _ in range(len(expected)):
        result, error = answers.get(timeout=TIMEOUT_S)
        assert error is None
        found[result.get_response().id] = int(result.as_numpy("output").ravel()[0])
    result, error = answers.get(timeout=TIMEOUT_S)
    client.stop_stream()
    assert found == expected
    assert "is not under way" in str(error)


def test_asyncio_client_keeps_sequences():
    """As the others."""

    async def run():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            return [
                await client.infer(
                    "direct_sum", make_inputs(5), sequence_id="aio", sequence_start=turn == 0, sequence_end=turn == 2
                )
                for turn in range(3)
            ]

    assert [int(answer.as_numpy("output")[0, 0]) for answer in asyncio.run(run())] == [5, 10, 15]


@pytest.mark.parametrize("model", SUMS)
def test_request_without_sequence_is_an_invalid_argument(client, model):
    """The text says what is expected."""
    with pytest.raises(InferenceServerException, match="expected parameter 'sequence_id'") as raised:
        client.infer(model, make_inputs(1, model))
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_controls_are_told_to_the_model(client):
    """Start, ready, end, and the id as a text."""
    tensor = triton.InferInput("input", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
    seen = []
    for turn in range(3):
        answer = client.infer("witness", [tensor], sequence_id="who", sequence_start=turn == 0, sequence_end=turn == 2)
        names = ("start_seen", "ready_seen", "end_seen", "id_seen")
        seen.append([answer.as_numpy(name).ravel().tolist()[0] for name in names])
    assert seen == [[1.0, 1.0, -1.0, b"who"], [-1.0, 1.0, -1.0, b"who"], [-1.0, 1.0, 1.0, b"who"]]


def test_metadata_has_what_callers_see(client):
    """Neither states nor controls; the configuration has both, filled in."""
    metadata = client.get_model_metadata("direct_sum")
    assert [tensor.name for tensor in (*metadata.inputs, *metadata.outputs)] == ["input", "output"]
    assert [tensor.name for tensor in client.get_model_metadata("witness").inputs] == ["input"]
    config = client.get_model_config("direct_sum").config
    assert [tensor.name for tensor in (*config.input, *config.output)] == ["input", "output"]
    [state] = config.sequence_batching.state
    assert (state.input_name, state.output_name, list(state.dims)) == ("state", "new_state", [2])
    assert config.sequence_batching.HasField("direct")
    assert not config.HasField("dynamic_batching")


def test_many_clients_each_with_a_sequence(client):
    """More of them than slots: all are served in the end."""

    def run(sequence):
        with triton.InferenceServerClient(ADDRESS) as own:
            return [add(own, sequence, 1, "oldest_sum", start=turn == 0, end=turn == 9) for turn in range(10)]

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(run, range(100, 112))) == [list(range(1, 11))] * 12


def test_sequence_waits_until_another_has_ended(client):
    """`single_sum` has one slot."""
    answers = queue.Queue()
    add(client, 1, 1, "single_sum", start=True)
    client.async_infer(
        "single_sum",
        make_inputs(7),
        callback=lambda result, error: answers.put(result or error),
        sequence_id=2,
        sequence_start=True,
        sequence_end=True,
    )
    assert add(client, 1, 1, "single_sum") == 2
    assert answers.empty()
    add(client, 1, 1, "single_sum", end=True)
    assert int(answers.get(timeout=TIMEOUT_S).as_numpy("output")[0, 0]) == 7


def test_silent_sequence_gives_its_slot_away(client):
    """`hasty_sum` has one slot, too, and sequences of 50 ms."""
    add(client, 1, 1, "hasty_sum", start=True)
    assert add(client, 2, 7, "hasty_sum", start=True, end=True) == 7
    with pytest.raises(InferenceServerException, match="sequence 1 of model 'hasty_sum' is not under way"):
        add(client, 1, 1, "hasty_sum")
