"""kernels.completions: replies come back to the loop that asked, whatever is cancelled meanwhile."""

import gc
import select
import weakref

import numpy as np
import onnx_models
import pytest
from inference_messages import decode_reply, encode_request
from ways import every_way

from kernels import status
from kernels.completions import CompletionQueue
from kernels.queue_options import QueueOptions


@pytest.fixture
def queue(engine):
    """A completion queue of the engine."""
    return CompletionQueue(engine)


def collect(queue):
    """Wait for everything in flight; return {context: (code, payload)}."""
    results = {}
    queue.flush()
    while queue.in_flight:
        readable, _, _ = select.select([queue.fileno()], [], [], 60)
        assert readable, "no completion within a minute"
        for call, code, payload in queue.drain():
            assert call.context not in results
            results[call.context] = (code, payload)
    return results


def nonce_message(index, rows=1):
    """A request to `same` whose rows say which it is."""
    return encode_request("same", {"input": np.full((rows, 4), index, np.float32)}, request_id=str(index))


@every_way
def test_each_completion_carries_its_own_reply(queue, load):
    """Nonce in, nonce out, hundreds at once."""
    load(onnx_models.identity(), "same", max_batch_size=32)
    for index in range(500):
        queue.submit(nonce_message(index, 1 + index % 5), index)
    results = collect(queue)
    for index in range(500):
        code, reply = results[index]
        assert code == status.OK
        np.testing.assert_array_equal(decode_reply(reply)["output"], np.full((1 + index % 5, 4), index, np.float32))


def test_refused_request_completes_with_its_text(queue, load):
    """A refusal comes the same way as a reply."""
    load(onnx_models.identity(), "same", max_batch_size=32)
    queue.submit(b"\xff", "malformed")
    queue.submit(encode_request("nobody", {}), "unknown")
    queue.submit(nonce_message(1), "late", b"", 0)
    results = collect(queue)
    assert results["malformed"][0] == status.INVALID
    assert results["unknown"] == (status.NOT_FOUND, "Request for unknown model: 'nobody' is not found")
    assert results["late"] == (status.EXPIRED, "Deadline Exceeded before the request arrived")


def test_one_wake_serves_many_completions(queue, load):
    """The descriptor is readable while completions wait and not afterwards."""
    load(onnx_models.identity(), "same", max_batch_size=32)
    for index in range(64):
        queue.submit(nonce_message(index), index)
    collect(queue)
    assert select.select([queue.fileno()], [], [], 0)[0] == []
    assert queue.drain() == []


@every_way
def test_cancelled_request_is_settled_once_and_never_run(engine, queue, load, way):
    """Queued requests are settled at once; batches that run are finished; a second cancellation does nothing."""
    taken = way.capacity + 1
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    calls = [queue.submit(message, index) for index in range(20)]
    queue.flush()
    for call in calls[taken:]:
        call.cancel()
        call.cancel()
    results = collect(queue)
    assert all(results[index] == (status.CANCELLED, results[taken][1]) for index in range(taken, 20))
    assert all(results[index][0] == status.OK for index in range(taken))
    for call in calls:
        call.cancel()
    assert engine.statistics("slow", 1)["executions"] == taken


def test_cancelled_before_the_flush_is_never_submitted(engine, queue, load):
    """What is cancelled in the same turn costs no run, and its neighbours are answered."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    calls = [queue.submit(nonce_message(index), index) for index in range(3)]
    calls[1].cancel()
    results = collect(queue)
    assert [results[index][0] for index in range(3)] == [status.OK, status.CANCELLED, status.OK]
    assert engine.statistics("same", 1)["rows"] == 2


@every_way
def test_cancelled_while_running_gets_no_reply(queue, engine, load):
    """A request that runs already is let finish, and its reply is dropped."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    call = queue.submit(encode_request("slow", {"input": np.zeros((1, 4), np.float32)}), "only")
    queue.flush()
    while engine.statistics("slow", 1)["queued"]:
        pass
    call.cancel()
    assert collect(queue)["only"][0] == status.CANCELLED


@every_way
def test_cancelled_at_its_deadline_is_settled_once(engine, queue, load):
    """Whichever comes first, the timer or the cancellation, the other one finds the request settled.

    The deadlines of a round lie close together, so that the timer unlinks many at once and settles one after another
    while they are being cancelled; settled twice, one would be given back twice.
    """
    load(onnx_models.slow(10_000), "slow", max_batch_size=1, queueing=QueueOptions(refuses_late=False))
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    for round_ in range(100):
        busy = [queue.submit(message, (round_, "busy", index)) for index in range(2)]
        calls = [queue.submit(message, (round_, index), b"", 2000) for index in range(300)]
        queue.flush()
        while engine.statistics("slow", 1)["queued"] > 250:
            pass
        for call in calls:
            call.cancel()
        results = collect(queue)
        assert len(results) == len(busy) + len(calls)
        assert {results[round_, index][0] for index in range(300)} <= {status.OK, status.CANCELLED, status.EXPIRED}


@every_way
def test_cancellation_storm_leaves_everybody_settled_and_nothing_held(queue, load):
    """Thousands of cancellations at every stage: each call completes once, the others with their own rows."""
    load(onnx_models.identity(), "same", max_batch_size=8, queue_delay_us=50, instance_count=2)
    generator = np.random.default_rng(5)
    results, pending = {}, []
    for index in range(4000):
        pending.append(queue.submit(nonce_message(index, 1 + index % 3), index))
        if generator.random() < 0.5:
            pending[int(generator.integers(len(pending)))].cancel()
        if index % 7 == 6:
            queue.flush()
        if index % 64 == 63:
            results |= {call.context: (code, payload) for call, code, payload in queue.drain()}
    results |= collect(queue)
    assert sorted(results) == list(range(4000))
    for index, (code, payload) in results.items():
        assert code in (status.OK, status.CANCELLED)
        if code == status.OK:
            assert (decode_reply(payload)["output"] == index).all()


def test_completed_call_releases_what_it_held(queue, load):
    """Nothing keeps a call's context alive once its reply was taken."""

    class Context:
        pass

    load(onnx_models.identity(), "same", max_batch_size=8)
    context = Context()
    watched = weakref.ref(context)
    queue.submit(nonce_message(1), context)
    queue.flush()
    del context
    while queue.in_flight:
        select.select([queue.fileno()], [], [], 60)
        queue.drain()
    gc.collect()
    assert watched() is None
