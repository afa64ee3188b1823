"""Whatever comes: everybody gets their own rows or their own error, once, and nothing is left over."""

import random
from dataclasses import dataclass, field

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer
from inference_messages import decode_reply, encode_request
from ways import LANE, LANES, WORKERS

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.queue_options import QueueOptions, QueuePolicy
from kernels.session import Session

REQUESTS = 400
ROUND = 40
MAX_ROWS = 8
TABLE_ROWS = REQUESTS * MAX_ROWS
MAX_PENDING_BYTES = 64 * 1024
LEVELS = (
    QueuePolicy(max_requests=30, timeout_us=3000, takes_timeouts=True),
    QueuePolicy(takes_timeouts=True, timeout_us=2000, postpones=True),
    QueuePolicy(timeout_us=5000),
)
QUEUES = {
    "plain": (0, QueueOptions()),
    "delay": (300, QueueOptions(preferred_batch_sizes=(3, 6), skips_delay_alone=True)),
    "order": (200, QueueOptions(keeps_order=True)),
    "levels": (100, QueueOptions(levels=LEVELS, default_level=2, keeps_order=True, preferred_batch_sizes=(4,))),
}


@dataclass
class Asked:
    """One request: the rows of the table that it wants, and what may become of it."""

    wanted: np.ndarray
    deadline_us: int = -1
    parameters: dict = field(default_factory=dict)
    is_bad: bool = False
    is_cancelled: bool = False


def draw_request(chance, number):
    """Any size, now and then with a deadline, a timeout, a priority, or a row that the table lacks."""
    rows = chance.randint(1, MAX_ROWS)
    asked = Asked(np.arange(number * MAX_ROWS, number * MAX_ROWS + rows))
    if chance.random() < 0.05:
        asked.is_bad = True
        asked.wanted[chance.randrange(rows)] = TABLE_ROWS + 1
    if chance.random() < 0.3:
        asked.deadline_us = chance.choice([0, 200, 1000, 5000, 1_000_000])
    if chance.random() < 0.5:
        asked.parameters["priority"] = chance.randint(0, 5)
    if chance.random() < 0.3:
        asked.parameters["timeout_us"] = chance.choice([1, 500, 2000, 10_000])
    return asked


def submit_requests(chance, queue, asked, numbers):
    """Submit some in a few turns, and cancel a few at any time."""
    calls = []
    for number in numbers:
        one = asked[number]
        message = encode_request("picker", {"index": one.wanted}, **one.parameters)
        calls.append((number, queue.submit(message, number, timeout_us=one.deadline_us)))
        if chance.random() < 0.3:
            queue.flush()
        if chance.random() < 0.1:
            cancelled, call = chance.choice(calls)
            asked[cancelled].is_cancelled = True
            call.cancel()
    queue.flush()


def check_outcome(asked, options, code, reply):
    """One's own rows, or an error that there was a reason for."""
    if code == status.OK:
        assert not asked.is_bad
        np.testing.assert_array_equal(decode_reply(reply)["output"], asked.wanted.astype(np.float32) * 1.5)
        return
    reasons = {
        status.CANCELLED: asked.is_cancelled,
        status.EXPIRED: asked.deadline_us >= 0 or bool(options.levels),
        status.EXHAUSTED: True,
    }
    assert reasons.get(code, asked.is_bad), (code, reply)


@pytest.mark.parametrize("way", [WORKERS, LANE, LANES], ids=["workers", "lane", "lanes"])
@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("seed", [1, 2])
def test_everybody_gets_their_own_rows_or_their_own_error(tmp_path, way, kind, seed):
    """Random arrivals, sizes, deadlines, timeouts, priorities, cancellations and failures."""
    chance = random.Random(seed)
    delay_us, options = QUEUES[kind]
    engine = Engine(max_pending_bytes=MAX_PENDING_BYTES)
    path = onnx_models.save(onnx_models.picker(TABLE_ROWS), tmp_path, "picker")
    instances = {"instance_count": 2} if way.buffer_sets == 0 else {"buffer_sets": way.buffer_sets}
    sessions = [Session(path, device=way.device) for _ in range(way.sessions)]
    engine.load(
        "picker",
        1,
        sessions,
        max_batch_size=MAX_ROWS,
        queue_delay_us=delay_us,
        max_queue_requests=100,
        queueing=options,
        **instances,
    )
    queue = CompletionQueue(engine)
    asked = [draw_request(chance, number) for number in range(REQUESTS)]
    settled = []
    for first in range(0, REQUESTS, ROUND):
        submit_requests(chance, queue, asked, range(first, first + ROUND))
        if chance.random() < 0.5:
            # Else the next round meets what is left of this one.
            settled += await_calls(queue, first + ROUND - len(settled))
    settled += await_calls(queue, REQUESTS - len(settled))
    for call, code, reply in settled:
        check_outcome(asked[call.context], options, code, reply)
    check_leftovers(engine, queue, settled)
    if kind == "order":
        answered = [call.context for call, code, _ in settled if code == status.OK]
        assert answered == sorted(answered)
    engine.close()


def check_leftovers(engine, queue, settled):
    """Nobody is forgotten or counted twice, batches are legal, and no byte is still held."""
    assert sorted(call.context for call, _, _ in settled) == list(range(REQUESTS))
    assert queue.in_flight == 0
    assert engine.drain(30)
    counts = engine.statistics("picker", 1)
    assert (counts["queued"], counts["running"]) == (0, 0)
    ends = ("success", "failed", "cancelled", "expired", "timed_out", "rejected", "late", "refused")
    never_queued = sum(code == status.CANCELLED and "before it was queued" in reply for _, code, reply in settled)
    assert sum(counts[end] for end in ends) == REQUESTS - never_queued
    assert counts["success"] == sum(code == status.OK for _, code, _ in settled)
    read = engine.read_statistics("picker", 1)
    assert all(1 <= batch.rows <= MAX_ROWS for batch in read.batches)
    assert sum(read.dispatches.values()) >= counts["executions"] / MAX_ROWS > 0
    # As many bytes as may wait at all: a single one that were still counted would have it refused.
    message = encode_request("picker", {"index": np.zeros(1, np.int64)}, request_id="")
    padding = MAX_PENDING_BYTES - len(message)
    padded = encode_request("picker", {"index": np.zeros(1, np.int64)}, request_id="x" * (padding - 4))
    assert MAX_PENDING_BYTES - 2 <= len(padded) <= MAX_PENDING_BYTES
    assert engine.infer(padded)
    assert infer(engine, "picker", {"index": np.array([3])})["output"].tolist() == [4.5]
