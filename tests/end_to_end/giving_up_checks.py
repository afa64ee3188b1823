"""What becomes of requests whose time is up or that are given up, with Triton's clients; run in another process.

The environment's ADDRESS says whom to call and METRICS where to scrape; `slow_by_value` runs one request at a time.
"""

import asyncio
import functools
import os
import queue
import time
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException

from tests.end_to_end.metrics_page import read_samples
from tests.end_to_end.triton_calls import read_statistics

ADDRESS = os.environ["ADDRESS"]
TIMEOUT_S = 60
MODEL = "slow_by_value"
# Iterations of a run: one that nobody notices, one of which much is left when a test gives it up, and one that outlasts
# what a test does meanwhile.
QUICK, SLOW, LONG = 1, 2**20, 2**21
PENDING = f'nv_inference_pending_request_count{{model="{MODEL}",version="1"}}'


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def ask(iterations):
    """A request that takes about as long as it says."""
    tensor = triton.InferInput("input", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), iterations, np.float32))
    return {"model_name": MODEL, "inputs": [tensor]}


def count_pending():
    """How many requests wait in the queue."""
    return read_samples(os.environ["METRICS"])[PENDING]


def read_ends(client):
    """How many requests succeeded, failed, and how many runs there were."""
    entry = read_statistics(client, MODEL)
    return np.array(
        [entry.inference_stats.success.count, entry.inference_stats.fail.count, entry.execution_count], np.int64
    )


def await_value(read, expected):
    """Return once what is read is as expected."""
    until = time.monotonic() + TIMEOUT_S
    while not np.array_equal(value := read(), expected):
        assert time.monotonic() < until, value
        time.sleep(0.005)


# ---- time that is up


def by_infer(request, timeout_s):
    """One call."""
    with triton.InferenceServerClient(ADDRESS) as client:
        return client.infer(**request, client_timeout=timeout_s)


def by_callback(request, timeout_s):
    """async_infer."""
    answers = queue.SimpleQueue()
    with triton.InferenceServerClient(ADDRESS) as client:
        client.async_infer(**request, callback=functools.partial(collect, answers), client_timeout=timeout_s)
        return take(answers)


def by_stream(request, timeout_s):
    """async_stream_infer; the time is the stream's."""
    answers = queue.SimpleQueue()
    with triton.InferenceServerClient(ADDRESS) as client:
        client.start_stream(functools.partial(collect, answers), stream_timeout=timeout_s)
        client.async_stream_infer(**request)
        return take(answers)


def by_asyncio(request, timeout_s):
    """The asynchronous client's one call."""

    async def infer():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            return await client.infer(**request, client_timeout=timeout_s)

    return asyncio.run(infer())


def by_asyncio_stream(request, timeout_s):
    """The asynchronous client's stream, whose end that client leaves to its caller as grpc's own error."""

    async def infer():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            [answer] = [one async for one in client.stream_infer(repeat(request), stream_timeout=timeout_s)]
            return answer

    try:
        result, error = asyncio.run(infer())
    except grpc.aio.AioRpcError as raised:
        raise InferenceServerException(msg=raised.details(), status=str(raised.code())) from None
    assert error is None
    return result


def collect(answers, result, error):
    """The callback of a request or a stream."""
    answers.put((result, error))


def take(answers):
    """The next answer; raises its error."""
    result, error = answers.get(timeout=TIMEOUT_S)
    if error is not None:
        raise error
    return result


async def repeat(request, times=1):
    """The requests of a stream."""
    for _ in range(times):
        yield request


@pytest.mark.parametrize("way", [by_infer, by_callback, by_stream, by_asyncio, by_asyncio_stream])
def test_time_that_is_too_short_ends_the_call_and_one_that_is_long_enough_does_not(client, way):
    """As in Triton's L0_client_timeout, with the words that it looks for."""
    before = read_ends(client)
    with pytest.raises(InferenceServerException, match="Deadline Exceeded") as raised:
        way(ask(SLOW), 0.1)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert way(ask(QUICK), TIMEOUT_S).as_numpy("output").tolist() == [[QUICK] * 4]
    # What ran is not broken off; nobody hears of its end but who counts.
    await_value(lambda: read_ends(client)[:2] - before[:2], [1, 1])


def test_time_that_passes_in_the_queue_ends_the_call_at_once(client):
    """And what it asked for never runs."""
    before = read_ends(client)
    client.async_infer(**ask(SLOW), callback=lambda result, error: None)
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        client.infer(**ask(SLOW), client_timeout=0.1)
    await_value(lambda: read_ends(client) - before, [1, 1, 1])


# ---- requests that are given up


@pytest.fixture
def occupied(client):
    """A call that runs, so that the next one waits; at the end it has run."""
    with triton.InferenceServerClient(ADDRESS) as other:
        # Calls that wait for a connection need not keep their order.
        other.infer(**ask(QUICK))
        other.async_infer(**ask(LONG), callback=lambda result, error: None)
        waiting = other.async_infer(**ask(QUICK), callback=lambda result, error: None)
        # One of the two waits, so that the other runs.
        await_value(count_pending, 1)
        waiting.cancel()
        await_value(count_pending, 0)
        yield
        other.infer(**ask(QUICK))


def test_call_that_is_given_up_is_told_so(client, occupied):
    """In the queue: it never runs, and is counted as a failure."""
    before, answers = read_ends(client), queue.SimpleQueue()
    call = client.async_infer(**ask(SLOW), callback=functools.partial(collect, answers))
    await_value(count_pending, 1)
    call.cancel()
    with pytest.raises(InferenceServerException, match="Locally cancelled by application!") as raised:
        take(answers)
    assert raised.value.status() == "StatusCode.CANCELLED"
    await_value(lambda: read_ends(client) - before, [0, 1, 0])


def test_call_that_is_given_up_while_it_runs_is_told_so(client):
    """Its run goes on to its end and is then nobody's: a failure, and a run."""
    before, answers = read_ends(client), queue.SimpleQueue()
    call = client.async_infer(**ask(SLOW), callback=functools.partial(collect, answers))
    client.async_infer(**ask(QUICK), callback=lambda result, error: None)
    await_value(count_pending, 1)
    call.cancel()
    with pytest.raises(InferenceServerException, match="Locally cancelled by application!"):
        take(answers)
    await_value(lambda: read_ends(client) - before, [1, 1, 2])


def test_stream_that_is_given_up_withdraws_all_its_requests(client, occupied):
    """By stop_stream; none of them runs."""
    before, answers = read_ends(client), queue.SimpleQueue()
    client.start_stream(functools.partial(collect, answers))
    for _ in range(20):
        client.async_stream_infer(**ask(SLOW))
    await_value(count_pending, 20)
    client.stop_stream(cancel_requests=True)
    with pytest.raises(InferenceServerException, match="Locally cancelled by application!"):
        take(answers)
    await_value(lambda: read_ends(client) - before, [0, 20, 0])


@asynccontextmanager
async def connect_async():
    """The asynchronous client."""
    async with triton_async.InferenceServerClient(ADDRESS) as client:
        yield client


def test_task_that_is_given_up_withdraws_its_request(client, occupied):
    """asyncio's way."""
    before = read_ends(client)

    async def run():
        async with connect_async() as other:
            task = asyncio.create_task(other.infer(**ask(SLOW)))
            await asyncio.to_thread(await_value, count_pending, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    await_value(lambda: read_ends(client) - before, [0, 1, 0])


def test_asyncio_stream_that_is_given_up_withdraws_its_requests(client, occupied):
    """By its iterator."""
    before = read_ends(client)

    async def run():
        async with connect_async() as other:
            stream = other.stream_infer(repeat(ask(SLOW), times=20))
            reading = asyncio.create_task(anext(stream))
            await asyncio.to_thread(await_value, count_pending, 20)
            assert stream.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(run())
    await_value(lambda: read_ends(client) - before, [0, 20, 0])
