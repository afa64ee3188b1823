"""Every counter of ModelStatistics after a known traffic, by every way of Triton's clients; run in another process.

The environment's ADDRESS says whom to call: a server that nobody else calls.
"""

import asyncio
import os
import queue
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException

from tests.end_to_end.triton_calls import read_statistics

ADDRESS = os.environ["ADDRESS"]
TIMEOUT_S = 60
DURATIONS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"
)  # fmt: skip
PHASES = ("compute_input", "compute_infer", "compute_output")
# The server's coarse clock is behind by up to this much.
COARSE_MS = 20


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_input(rows, columns=4):
    """The only input of the models `counted` and `warm`."""
    tensor = triton.InferInput("input", [rows, columns], "FP32")
    tensor.set_data_from_numpy(np.ones((rows, columns), np.float32))
    return tensor


def count(entry):
    """Every number of an entry but times, by name; batches by their size."""
    stats = entry.inference_stats
    batches = {
        (batch.batch_size, phase): getattr(batch, phase).count for batch in entry.batch_stats for phase in PHASES
    }
    totals = {"rows": entry.inference_count, "runs": entry.execution_count}
    return totals | {name: getattr(stats, name).count for name in DURATIONS} | batches


def expect(*, success=0, fail=0, batches=()):
    """The counters of requests, and of {rows: runs}."""
    batches = dict(batches)
    totals = {"rows": sum(rows * runs for rows, runs in batches.items()), "runs": sum(batches.values())}
    requests = {"success": success, "fail": fail, "cache_hit": 0, "cache_miss": 0}
    phases = dict.fromkeys(("queue", *PHASES), success)
    return totals | requests | phases | {(rows, phase): runs for rows, runs in batches.items() for phase in PHASES}


def subtract(after, before):
    """By how much each counter went up; those that stayed are left out."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def without_zeros(counts):
    """As subtract leaves it."""
    return {name: value for name, value in counts.items() if value}


def infer_plainly(client, rows):
    """One call after another."""
    for size in rows:
        client.infer("counted", [make_input(size)])


def infer_on_stream(client, rows):
    """One message after another."""
    answers = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put(error))
    for size in rows:
        client.async_stream_infer("counted", [make_input(size)])
        assert answers.get(timeout=TIMEOUT_S) is None
    client.stop_stream()


def infer_with_asyncio(client, rows):
    """One awaited call after another."""

    async def run():
        async with triton_async.InferenceServerClient(ADDRESS) as other:
            for size in rows:
                await other.infer("counted", [make_input(size)])

    asyncio.run(run())


@pytest.mark.parametrize("way", [infer_plainly, infer_on_stream, infer_with_asyncio])
def test_answered_requests_are_counted_wherever_they_belong(client, way):
    """One by one, so that each is a run: 2 of one row, 1 of two, 3 of four."""
    before, begun_ms = read_statistics(client, "counted"), time.time() * 1000
    way(client, [1, 4, 2, 4, 1, 4])
    after = read_statistics(client, "counted")
    expected = expect(success=6, batches={1: 2, 2: 1, 4: 3})
    assert subtract(count(after), count(before)) == without_zeros(expected)
    assert begun_ms - COARSE_MS <= after.last_inference <= time.time() * 1000


def test_requests_at_a_time_are_counted_each_and_their_runs_as_they_were(client):
    """However they were put together: rows and requests are exact, and the batches make up all rows."""
    before = read_statistics(client, "counted")
    answers = queue.SimpleQueue()
    for rows in [1, 2, 3] * 40:
        client.async_infer("counted", [make_input(rows)], lambda result, error: answers.put(error))
    assert {answers.get(timeout=TIMEOUT_S) for _ in range(120)} == {None}
    after = read_statistics(client, "counted")
    counted = subtract(count(after), count(before))
    assert (counted["success"], counted["queue"], counted["compute_infer"]) == (120, 120, 120)
    runs = {rows: counted.get((rows, "compute_infer"), 0) for rows in (1, 2, 3, 4)}
    assert sum(rows * times for rows, times in runs.items()) == counted["rows"] == 240
    assert sum(runs.values()) == counted["runs"]


@pytest.mark.parametrize(
    "inputs",
    [[], [make_input(1, columns=5)], [make_input(5)], [make_input(1), make_input(1)]],
    ids=["nothing", "shape", "rows", "twice"],
)
def test_requests_that_do_not_fit_are_failures_and_no_runs(client, inputs):
    """One failure each."""
    before = read_statistics(client, "counted")
    with pytest.raises(InferenceServerException):
        client.infer("counted", inputs)
    assert subtract(count(read_statistics(client, "counted")), count(before)) == {"fail": 1}


def test_run_that_fails_is_a_failure_and_no_inference(client):
    """Its time is that of failures."""
    tensor = triton.InferInput("index", [1], "INT64")
    before = read_statistics(client, "picker")
    for index, outcome in ((10**6, {"fail": 1}), (3, without_zeros(expect(success=1, batches={1: 1})))):
        tensor.set_data_from_numpy(np.array([index]))
        if "fail" in outcome:
            with pytest.raises(InferenceServerException):
                client.infer("picker", [tensor])
        else:
            client.infer("picker", [tensor])
        after = read_statistics(client, "picker")
        assert subtract(count(after), count(before)) == outcome
        assert (after.inference_stats.fail.ns > before.inference_stats.fail.ns) == ("fail" in outcome)
        before = after


def test_requests_for_what_is_not_there_are_nobodys(client):
    """No counter of any model moves."""
    before = str(client.get_inference_statistics())
    for model, version in (("nobody", ""), ("counted", "7"), ("counted", "+1")):
        with pytest.raises(InferenceServerException):
            client.infer(model, [make_input(1)], model_version=version)
    assert str(client.get_inference_statistics()) == before


def test_times_add_up(client):
    """A request's parts are within its whole, and phases of batches are those of requests when each ran alone."""
    client.infer("warm", [make_input(8)])
    client.infer("warm", [make_input(1)])
    entry = read_statistics(client, "warm")
    stats = entry.inference_stats
    parts = [stats.queue, *(getattr(stats, phase) for phase in PHASES)]
    assert 0 < sum(part.ns for part in parts) <= stats.success.ns
    for phase in PHASES:
        assert sum(getattr(batch, phase).ns for batch in entry.batch_stats) == getattr(stats, phase).ns > 0
    assert (stats.cache_hit.ns, stats.cache_miss.ns, len(entry.response_stats)) == (0, 0, 0)


def test_warm_up_is_not_counted(client):
    """12 rows in 3 runs before the model was ready."""
    entry = read_statistics(client, "untouched")
    assert without_zeros(count(entry)) == {}
    assert (entry.last_inference, len(entry.batch_stats)) == (0, 0)
