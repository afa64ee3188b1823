"""kernels.admission and kernels.service_time: what cannot be answered in time is refused, and nothing else."""

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows
from inference_messages import encode_request
from waiting_line import BUSY_ITERATIONS, WaitingLine

from kernels import status
from kernels.completions import CompletionQueue
from kernels.queue_options import QueueOptions, QueuePolicy

# As kernels/service_time.pyx has it.
ENOUGH_RUNS = 16
# Some milliseconds a run.
ITERATIONS = 20_000.0


def teach(engine, iterations=ITERATIONS, runs=ENOUGH_RUNS):
    """Run requests of that many iterations, one after another; returns what a run takes, in nanoseconds."""
    before = engine.statistics("moody", 1)
    for _ in range(runs):
        infer(engine, "moody", {"input": np.full((1, 4), iterations, np.float32)})
    after = engine.statistics("moody", 1)
    return (after["run_ns"] - before["run_ns"]) / runs


def test_request_that_cannot_be_in_time_is_refused_at_once(engine, load):
    """With how much later it would have been answered, and it never runs."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1)
    run_ns = teach(engine)
    requests = WaitingLine(engine)
    requests.occupy()
    for index in range(20):
        requests.add(index)
    hasty = requests.add("hasty", deadline_us=int(5 * run_ns / 1000))
    [(name, code, text)] = requests.take(1)
    assert (name, code) == ("hasty", status.EXHAUSTED)
    assert "after its deadline: 20 requests wait" in text
    assert 0 < hasty.retry_ns < 60 * run_ns
    assert engine.statistics("moody", 1)["running"] == 1
    requests.take_all()
    counts = engine.statistics("moody", 1)
    assert (counts["late"], counts["expired"], counts["success"]) == (1, 0, ENOUGH_RUNS + 21)


def test_request_that_can_be_in_time_is_taken_and_answered(engine, load):
    """The same load, and a deadline that can be kept."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1)
    teach(engine)
    requests = WaitingLine(engine)
    requests.occupy()
    for index in range(20):
        requests.add(index)
    patient = requests.add("patient", deadline_us=60_000_000)
    assert "patient" in requests.take_all()
    assert patient.retry_ns == 0


def test_nothing_is_refused_before_enough_is_known(engine, load):
    """One run fewer: the deadline passes in the queue."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1)
    teach(engine, runs=ENOUGH_RUNS - 2)
    requests = WaitingLine(engine)
    requests.occupy()
    requests.add("hasty", deadline_us=1000)
    assert [(name, code) for name, code, _ in requests.take(1)] == [("hasty", status.EXPIRED)]
    requests.take_all()


def test_request_that_finds_a_free_instance_is_taken_however_hasty(engine, load):
    """So that a model that has become quicker is found out."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1)
    run_ns = teach(engine, BUSY_ITERATIONS / 5)
    # A caller has its answer a moment before the instance is free.
    while engine.statistics("moody", 1)["running"] > 0:
        pass
    assert engine.infer(encode_request("moody", {"input": nonce_rows(1, 1)}), timeout_us=int(run_ns / 2000))


def test_estimate_follows_a_model_that_becomes_quicker(engine, load):
    """After as many quick runs the same request is taken that was refused."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1)
    run_ns = teach(engine, BUSY_ITERATIONS / 5)
    teach(engine, 1.0, 2 * ENOUGH_RUNS)
    requests = WaitingLine(engine)
    requests.occupy()
    for index in range(5):
        requests.add(index)
    # Long enough for the request that is under way, which takes five times as long as what was learned first.
    requests.add("hasty", deadline_us=int(30 * run_ns / 1000))
    assert "hasty" in requests.take_all()


def test_more_urgent_request_is_judged_by_what_comes_before_it(engine, load):
    """Of two with the same deadline only the one that waits behind everything is refused."""
    options = QueueOptions(levels=(QueuePolicy(), QueuePolicy()), default_level=2)
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1, queueing=options)
    run_ns = teach(engine)
    requests = WaitingLine(engine)
    requests.occupy()
    for index in range(90):
        requests.add(index)
    deadline_us = int(run_ns * 60 / 1000)
    requests.add("patient", deadline_us=deadline_us)
    assert [(name, code) for name, code, _ in requests.take(1)] == [("patient", status.EXHAUSTED)]
    requests.add("urgent", priority=1, deadline_us=deadline_us)
    assert requests.take_all()[0] == "urgent"


def test_late_requests_are_taken_where_that_is_asked_for(engine, load):
    """They expire in the queue."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=1, queueing=QueueOptions(refuses_late=False))
    teach(engine)
    requests = WaitingLine(engine)
    requests.occupy()
    requests.add("hasty", deadline_us=1000)
    assert [(name, code) for name, code, _ in requests.take(1)] == [("hasty", status.EXPIRED)]
    requests.take_all()


@pytest.mark.parametrize("rows", [1, 8])
def test_batches_of_what_waits_are_counted_not_requests(engine, load, rows):
    """Eight rows run together take as long as one: what eight requests of a row wait for is one run."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=8)
    run_ns = teach(engine)
    queue = CompletionQueue(engine)
    for index in range(9):
        message = encode_request("moody", {"input": np.full((1, 4), ITERATIONS + index, np.float32)})
        queue.submit(message, index)
    queue.flush()
    queue.submit(encode_request("moody", {"input": nonce_rows(1, rows)}), "hasty", timeout_us=int(20 * run_ns / 1000))
    queue.flush()
    assert {code for _, code, _ in await_calls(queue, 10)} == {status.OK}
