"""kernels.sequences: whatever happens in whatever order, every sequence adds up."""

import select
import threading

import numpy as np
import onnx_models
import pytest
from inference_messages import decode_reply
from sequence_calls import PICK_STATE, encode_pick

from kernels import status
from kernels.completions import CompletionQueue
from tests.kernels.ways import LANES, STAGED, WORKERS


@pytest.fixture
def queue(engine):
    """A completion queue of the engine."""
    return CompletionQueue(engine)


class Replay:
    """What a sequence's answers must be, by what became of each of its requests, in the order in which they came."""

    def __init__(self, may_time_out):
        self._may_time_out = may_time_out
        self._is_live = False
        self._has_begun = False
        self._sum = 0

    def check(self, flags, index, code, payload):
        """Check the outcome of the next request."""
        start, end = flags
        if code == status.INVALID and "is not under way" in payload:
            # A sequence of which nothing ever ran may have been forgotten.
            assert not start
            assert not self._is_live or self._may_time_out or not self._has_begun
            self._is_live = False
            return
        assert start or self._is_live, (code, payload)
        if start:
            self._sum, self._has_begun = 0, False
        self._is_live = not end
        if code == status.OK:
            self._sum += index
            assert decode_reply(payload)["output"].tolist() == [self._sum]
        else:
            assert code in (status.CANCELLED, status.EXPIRED) or index > 9, payload
        self._has_begun |= code not in (status.CANCELLED, status.EXPIRED)


@pytest.mark.parametrize("idle_us", [600_000_000, 2000])
@pytest.mark.parametrize(
    ("seed", "way"), [*((seed, WORKERS) for seed in range(4)), (1, STAGED), (2, LANES)], indirect=["way"]
)
def test_every_sequence_adds_up_whatever_happens(engine, loader, queue, seed, way, idle_us):
    """Random sequences, interleaved, with starts, ends, failures, deadlines, cancellations and silence at random."""
    generator = np.random.default_rng(seed)
    loader.load(
        onnx_models.picking_accumulator(),
        "pick",
        max_batch_size=4,
        states=[PICK_STATE],
        instance_count=1 + seed % 2,
        queue_delay_us=(0, 300)[seed // 2],
        slots=6,
        idle_us=idle_us,
        max_queue_requests=100_000,
    )
    sent, outcomes, calls = [], {}, []

    def take():
        outcomes.update({call.context: (code, payload) for call, code, payload in queue.drain()})

    for number in range(3000):
        sequence = int(generator.integers(1, 13))
        flags = bool(generator.random() < 0.15), bool(generator.random() < 0.15)
        index = int(generator.integers(0, 10)) if generator.random() < 0.95 else 99
        timeout_us = int(generator.integers(1, 3000)) if generator.random() < 0.1 else -1
        message = encode_pick(sequence if sequence % 2 else str(sequence), index, start=flags[0], end=flags[1])
        calls.append(queue.submit(message, number, b"", timeout_us))
        sent.append((sequence, flags, index))
        if generator.random() < 0.1:
            calls[int(generator.integers(max(0, number - 40), number + 1))].cancel()
        if generator.random() < 0.2:
            queue.flush()
            take()
    queue.flush()
    # What waits for slots of sequences that never end has its turn only now.
    ender = threading.Thread(target=engine.drain, args=(60.0,))
    ender.start()
    while len(outcomes) < len(sent):
        assert select.select([queue.fileno()], [], [], 60)[0]
        take()
    ender.join()
    replays = {}
    for number, (sequence, flags, index) in enumerate(sent):
        code, payload = outcomes[number]
        if code == status.CANCELLED and "before it was queued" in payload:
            continue
        if code == status.EXPIRED and "before the request arrived" in payload:
            continue
        if code == status.EXHAUSTED and "after its deadline" in payload:
            continue
        replay = replays.setdefault(sequence, Replay(idle_us < 10_000))
        replay.check(flags, index, code, payload)
    counts = engine.statistics("pick", 1)
    assert counts["queued"] == counts["running"] == 0
    assert counts["success"] == sum(code == status.OK for code, _ in outcomes.values()) > 500
