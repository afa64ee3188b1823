"""Whatever comes of whatever length: everybody gets their own elements or their own error, and nothing is left over."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import uneven_models
from engine_calls import await_calls
from inference_messages import decode_reply, encode_request
from ways import LANE, LANES, WORKERS

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.queue_options import QueueOptions
from kernels.uneven_rules import BatchOutput, PaddedInput, RaggedInput
from tests.kernels.uneven_calls import UnevenLoader

REQUESTS = 300
ROUND = 30
MAX_ROWS = 8
MAX_LENGTH = 40
TABLE_SIZE = REQUESTS * MAX_ROWS * MAX_LENGTH
QUEUES = {
    "plain": (0, QueueOptions()),
    "delay": (300, QueueOptions(preferred_batch_sizes=(3, 6), skips_delay_alone=True)),
    "order": (200, QueueOptions(keeps_order=True)),
}
KINDS = {
    "ragged": (
        ("elements",),
        {"index": (-1, -1), "output": (-1, -1)},
        {
            "ragged": [RaggedInput("index", (-1, -1))],
            "batch_outputs": [BatchOutput("output", (-1, -1), "index")],
        },
    ),
    "padded": (("batch", "length"), None, {"padded": [PaddedInput("index", bytes(8))]}),
    "rounded": (
        ("batch", "length"),
        None,
        {"padded": [PaddedInput("index", bytes(8))], "multiple": 8, "max_ratio": 10.0},
    ),
}


@dataclass
class Asked:
    """One request: the elements of the table that it wants, and what may become of it."""

    wanted: np.ndarray
    deadline_us: int = -1
    is_bad: bool = False
    is_cancelled: bool = False


def draw_request(chance, number):
    """Any rows and length, none among them, now and then with a deadline, or an element that the table lacks."""
    rows, length = chance.randint(1, MAX_ROWS), chance.choice([0, 1, 2, 3, 5, 8, 13, MAX_LENGTH])
    first = number * MAX_ROWS * MAX_LENGTH
    asked = Asked(np.arange(first, first + rows * length).reshape(rows, length))
    if length > 0 and chance.random() < 0.05:
        asked.is_bad = True
        asked.wanted[chance.randrange(rows), chance.randrange(length)] = TABLE_SIZE + 1
    if chance.random() < 0.1:
        asked.deadline_us = chance.choice([200, 1000, 5000])
    return asked


def submit_requests(chance, queue, asked, numbers):
    """Submit some in a few turns, and cancel a few at any time."""
    calls = []
    for number in numbers:
        one = asked[number]
        message = encode_request("table", {"index": one.wanted})
        calls.append((number, queue.submit(message, number, timeout_us=one.deadline_us)))
        if chance.random() < 0.3:
            queue.flush()
        if chance.random() < 0.1:
            cancelled, call = chance.choice(calls)
            asked[cancelled].is_cancelled = True
            call.cancel()
    queue.flush()


def check_outcome(asked, code, reply):
    """One's own elements in one's own shape, or an error that there was a reason for."""
    if code == status.OK:
        assert not asked.is_bad
        output = decode_reply(reply)["output"]
        assert output.shape == asked.wanted.shape
        np.testing.assert_array_equal(output, asked.wanted.astype(np.float32) * 1.5)
        return
    reasons = {status.CANCELLED: asked.is_cancelled, status.EXPIRED: asked.deadline_us >= 0, status.EXHAUSTED: True}
    assert reasons.get(code, asked.is_bad), (code, reply)


@pytest.mark.parametrize("way", [WORKERS, LANE, LANES], ids=["workers", "lane", "lanes"])
@pytest.mark.parametrize("queueing", QUEUES)
@pytest.mark.parametrize("kind", KINDS)
def test_everybody_gets_their_own_elements_or_their_own_error(tmp_path, way, queueing, kind):
    """Random arrivals, lengths, rows, deadlines, cancellations and failures."""
    chance = random.Random(f"{kind} {queueing}")
    shape, seen, rules = KINDS[kind]
    delay_us, options = QUEUES[queueing]
    engine = Engine()
    model = uneven_models.table_rows(TABLE_SIZE, shape)
    UnevenLoader(engine, tmp_path, way).load(
        model, "table", seen, rules=rules, queue_delay_us=delay_us, queueing=options, max_batch_size=MAX_ROWS
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
        check_outcome(asked[call.context], code, reply)
    assert sorted(call.context for call, _, _ in settled) == list(range(REQUESTS))
    assert queue.in_flight == 0
    assert engine.drain(30)
    assert engine.pending_bytes == 0
    counts = engine.statistics("table", 1)
    assert (counts["queued"], counts["running"]) == (0, 0)
    assert counts["success"] == sum(code == status.OK for _, code, _ in settled)
    assert all(1 <= batch.rows <= MAX_ROWS for batch in engine.read_statistics("table", 1).batches)
    # Lengths differ, and yet requests shared runs.
    assert counts["executions"] < counts["success"]
    engine.close()
