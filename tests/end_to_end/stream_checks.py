"""Streams of Triton's clients: many requests in flight, errors among them, slow readers; run in another process.

The environment's ADDRESS says whom to call, and PID is the server's process.
"""

import asyncio
import functools
import os
import queue
import re
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async

ADDRESS = os.environ["ADDRESS"]
STATUS = Path(f"/proc/{os.environ['PID']}/status")
TIMEOUT_S = 60
MANY = 2000
# Of `wide`, which makes as many numbers of each; replies of 64 KiB.
WIDTH = 16384
# What the transports hold of one stream's replies: 64 requests of it, and windows of a few MiB.
KEPT_BYTES = 64 * 2**20
ENDS_ON_FAILURE = {"triton_grpc_error": "true"}
# A request that fails, and the words that say why.
FAILURES = {
    "unknown model": ({"model_name": "nobody"}, "Request for unknown model: 'nobody' is not found"),
    "unknown version": ({"model_version": "7"}, "Request for unknown model: 'counted' version 7 is not found"),
    "no version": ({"model_version": "+1"}, "failed to get model version from specified version string '+1'"),
    "wrong shape": ({"columns": 5}, "input 'input' has the wrong shape"),
    "too many rows": ({"rows": 5}, "input 'input' has a batch of 5 rows"),
    "wrong datatype": ({"datatype": "INT32"}, "input 'input' has datatype 'INT32'"),
    "wrong in the run": ({"model_name": "picker"}, "indices element out of data bounds"),
}


class Stream:
    """The stream of a client of its own, and what it answers."""

    def __init__(self, callback=None, **options):
        self._answers = queue.SimpleQueue()
        self._client = triton.InferenceServerClient(ADDRESS)
        self._client.start_stream(callback or functools.partial(collect, self._answers), **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def say(self, request):
        """Send a request."""
        self._client.async_stream_infer(**request)

    def hear(self):
        """(result, error) of the next answer."""
        return self._answers.get(timeout=TIMEOUT_S)

    def finish(self):
        """Send no more, and return once everything is answered."""
        self._client.stop_stream()


def collect(answers, result, error):
    """The callback of a stream."""
    answers.put((result, error))


def ask(nonce, model_name="counted", *, model_version="", rows=1, columns=4, datatype="FP32"):
    """A request that nobody else makes, of a model that gives back what it gets."""
    if model_name == "picker":
        tensor = triton.InferInput("index", [1], "INT64")
        tensor.set_data_from_numpy(np.array([10**6]))
    else:
        tensor = triton.InferInput("input", [rows, columns], datatype)
        tensor.set_data_from_numpy(np.full((rows, columns), nonce, np.int32 if datatype == "INT32" else np.float32))
    return {"model_name": model_name, "model_version": model_version, "inputs": [tensor], "request_id": str(nonce)}


def check(answer, nonce):
    """It is the one to a request of this nonce."""
    result, error = answer
    assert error is None
    assert result.get_response().id == str(nonce)
    assert set(result.as_numpy("output").flat) == {nonce}


def test_many_requests_in_flight_are_answered_by_their_ids():
    """All are sent before the first answer is looked at."""
    with Stream() as stream:
        for nonce in range(MANY):
            stream.say(ask(nonce))
        for nonce in range(MANY):
            check(stream.hear(), nonce)


def test_streams_at_a_time_get_their_own():
    """Of several clients, whose requests meet in the same batches."""
    streams = [Stream() for _ in range(8)]
    for nonce in range(100):
        for place, stream in enumerate(streams):
            stream.say(ask(1000 * place + nonce))
    for place, stream in enumerate(streams):
        with stream:
            for nonce in range(100):
                check(stream.hear(), 1000 * place + nonce)


@pytest.mark.parametrize("failure", FAILURES)
def test_error_answers_its_own_request_and_leaves_the_stream_open(failure):
    """Those before and behind it are answered, also one that is sent after the error was heard."""
    changes, words = FAILURES[failure]
    with Stream() as stream:
        stream.say(ask(1))
        stream.say(ask(2, **changes))
        stream.say(ask(3))
        check(stream.hear(), 1)
        result, error = stream.hear()
        assert result is None
        assert re.search(re.escape(words), error.message())
        check(stream.hear(), 3)
        stream.say(ask(4))
        check(stream.hear(), 4)
        stream.finish()


@pytest.mark.parametrize("failure", FAILURES)
def test_error_ends_the_stream_with_its_status_where_that_is_asked_for(failure):
    """By Triton's header: what was sent before is answered, what comes after is not."""
    changes, words = FAILURES[failure]
    with Stream(headers=ENDS_ON_FAILURE) as stream:
        for nonce in range(20):
            stream.say(ask(nonce))
        stream.say(ask(20, **changes))
        for nonce in range(21, 60):
            stream.say(ask(nonce))
        for nonce in range(20):
            check(stream.hear(), nonce)
        result, error = stream.hear()
        assert result is None
        assert words in error.message()
        assert error.status() == f"StatusCode.{'NOT_FOUND' if 'unknown' in failure else 'INVALID_ARGUMENT'}"
        stream.finish()


def test_asyncio_stream_ends_with_the_status_where_that_is_asked_for():
    """As grpc's own error, which that client passes on."""

    async def run():
        async def requests():
            # A third one could be on its way when the stream ends, for which grpc's client has an error of its own.
            yield ask(0)
            yield ask(1, model_version="7")

        async with triton_async.InferenceServerClient(ADDRESS) as client:
            answers = client.stream_infer(requests(), headers=ENDS_ON_FAILURE)
            check(await anext(answers), 0)
            with pytest.raises(grpc.aio.AioRpcError, match="version 7 is not found") as raised:
                await anext(answers)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(run())


def test_every_kind_of_error_at_once_answers_its_own():
    """Good and bad requests in turns, many in flight."""
    kinds = list(FAILURES.values())
    with Stream() as stream:
        for nonce in range(MANY // 2):
            stream.say(ask(2 * nonce))
            stream.say(ask(2 * nonce + 1, **kinds[nonce % len(kinds)][0]))
        for nonce in range(MANY // 2):
            check(stream.hear(), 2 * nonce)
            assert kinds[nonce % len(kinds)][1] in stream.hear()[1].message()


def test_stream_that_is_half_closed_answers_what_is_in_flight():
    """The client says that it sends no more, and waits."""
    heard = []
    with Stream(lambda result, error: heard.append((result, error))) as stream:
        for nonce in range(500):
            stream.say(ask(nonce))
        stream.finish()
    assert len(heard) == 500
    for nonce, answer in enumerate(heard):
        check(answer, nonce)


def test_asyncio_stream_that_is_half_closed_answers_what_is_in_flight():
    """Its requests end before its first answer is read."""

    async def run():
        sent = asyncio.Event()

        async def requests():
            for nonce in range(60):
                yield ask(nonce)
            sent.set()

        async with triton_async.InferenceServerClient(ADDRESS) as client:
            answers = client.stream_infer(requests(), stream_timeout=TIMEOUT_S)
            await sent.wait()
            return [answer async for answer in answers]

    for nonce, answer in enumerate(asyncio.run(run())):
        check(answer, nonce)


def test_asyncio_stream_is_a_conversation():
    """Each request is made of the answer before it."""

    async def run():
        heard = asyncio.Queue()

        async def requests():
            nonce = 1
            while nonce < 1000:
                yield ask(nonce)
                nonce = 2 * (await heard.get()).as_numpy("output")[0, 0]

        async with triton_async.InferenceServerClient(ADDRESS) as client:
            numbers = []
            async for result, error in client.stream_infer(requests(), stream_timeout=TIMEOUT_S):
                assert error is None
                numbers.append(int(result.as_numpy("output")[0, 0]))
                heard.put_nowait(result)
            return numbers

    assert asyncio.run(run()) == [2**power for power in range(10)]


def read_memory_bytes():
    """The server's resident size."""
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", STATUS.read_text())[1])


def widen(nonce):
    """A small request for a large answer."""
    tensor = triton.InferInput("input", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.full((1, 1), nonce, np.float32))
    return {"model_name": "wide", "inputs": [tensor], "request_id": str(nonce)}


def test_reader_that_is_slow_costs_the_server_little_and_loses_nothing():
    """Thousands in flight, whose answers are 128 MiB: nobody takes one until others have been served."""
    gate, answers = threading.Event(), queue.SimpleQueue()

    def take(result, error):
        gate.wait(TIMEOUT_S)
        answers.put((result, error))

    with Stream(take) as stream, Stream() as other:
        other.say(widen(1))
        check(other.hear(), 1)
        before = read_memory_bytes()
        for nonce in range(MANY):
            stream.say(widen(nonce))
        for nonce in range(300):
            other.say(ask(nonce))
            check(other.hear(), nonce)
        assert read_memory_bytes() - before < KEPT_BYTES
        gate.set()
        for nonce in range(MANY):
            check(answers.get(timeout=TIMEOUT_S), nonce)


def test_stream_that_is_given_up_leaves_the_client_a_new_one():
    """stop_stream with cancel_requests in the midst of answers, and start_stream again."""
    with triton.InferenceServerClient(ADDRESS) as client:
        for _ in range(20):
            answers = queue.SimpleQueue()
            client.start_stream(functools.partial(collect, answers))
            for nonce in range(50):
                client.async_stream_infer(**ask(nonce))
            check(answers.get(timeout=TIMEOUT_S), 0)
            client.stop_stream(cancel_requests=True)
