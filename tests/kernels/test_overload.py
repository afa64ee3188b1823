"""An overloaded model keeps to itself: another's requests wait for none of its runs."""

import statistics
import time

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows
from inference_messages import encode_request

from kernels.completions import CompletionQueue
from kernels.queue_options import QueueOptions

# Of the slow model, a run takes some tens of milliseconds.
SLOW_ITERATIONS = 60_000
INSTANCES = 16
CALLS = 50


@pytest.mark.parametrize("queueing", [QueueOptions(), QueueOptions(keeps_order=True)], ids=["any order", "in order"])
def test_overloaded_model_leaves_anothers_latency_alone(engine, load, queueing):
    """However many instances it has, and however much waits for them."""
    load(onnx_models.slow(SLOW_ITERATIONS), "slow", max_batch_size=1, instance_count=INSTANCES, queueing=queueing)
    load(onnx_models.identity(), "quick", max_batch_size=4)
    begun = time.monotonic()
    infer(engine, "slow", {"input": nonce_rows(1, 1)})
    run_s = time.monotonic() - begun
    queue = CompletionQueue(engine)
    flood = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    submitted, latencies = 0, []
    while len(latencies) < CALLS:
        while engine.statistics("slow", 1)["queued"] < INSTANCES:
            queue.submit(flood, submitted)
            queue.flush()
            submitted += 1
        begun = time.monotonic()
        infer(engine, "quick", {"input": nonce_rows(1, 1)})
        latencies.append(time.monotonic() - begun)
    assert engine.statistics("slow", 1)["queued"] > 0
    # Behind the other's runs it would wait for one at least.
    assert statistics.median(latencies) < run_s / 4
    await_calls(queue, submitted)
