"""An overloaded or busy model keeps to itself: neither another's requests nor the timer wait for its runs."""

import statistics

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows, refusal_of
from inference_messages import encode_request
from waiting_line import WaitingLine

from kernels import status
from kernels.completions import CompletionQueue
from kernels.queue_options import QueueOptions

# Of the slow model, a run takes some tens of milliseconds.
SLOW_ITERATIONS = 60_000
INSTANCES = 16
DELAY_US = 1000
CALLS = 50


@pytest.mark.parametrize("queueing", [QueueOptions(), QueueOptions(keeps_order=True)], ids=["any order", "in order"])
def test_overloaded_model_leaves_anothers_latency_alone(engine, load, queueing):
    """However many instances it has, and however much waits for them."""
    load(onnx_models.slow(SLOW_ITERATIONS), "slow", max_batch_size=1, instance_count=INSTANCES, queueing=queueing)
    load(onnx_models.identity(), "quick", max_batch_size=4)
    queue = CompletionQueue(engine)
    flood = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    submitted, ended = 0, []
    while len(ended) < CALLS:
        while engine.statistics("slow", 1)["queued"] < INSTANCES:
            queue.submit(flood, submitted)
            queue.flush()
            submitted += 1
        before = engine.statistics("slow", 1)["executions"]
        infer(engine, "quick", {"input": nonce_rows(1, 1)})
        ended.append(engine.statistics("slow", 1)["executions"] - before)
    assert engine.statistics("slow", 1)["queued"] > 0
    # Behind the other's runs it would wait for one at least. Now and then one ends meanwhile all the same.
    assert statistics.median(ended) == 0
    await_calls(queue, submitted)


def test_run_that_a_delays_end_began_does_not_hold_up_the_timer(engine, load):
    """Delays that end and deadlines that pass meanwhile are seen to, the first of which the same thread began."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=8, queue_delay_us=DELAY_US)
    load(onnx_models.identity(), "quick", max_batch_size=8, queue_delay_us=DELAY_US)
    requests = WaitingLine(engine)
    requests.occupy()
    for index in range(20):
        rows = nonce_rows(index, 1)
        np.testing.assert_array_equal(infer(engine, "quick", {"input": rows})["output"], rows)
        message = encode_request("moody", {"input": rows})
        assert refusal_of(engine, message, timeout_us=DELAY_US)[0] == status.EXPIRED
    assert engine.statistics("moody", 1)["running"] == 1
    assert requests.take_all() == []
