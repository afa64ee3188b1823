"""Random graphs, requests, failures, deadlines, cancellations: each caller gets what NumPy makes of its own.

Values are small whole numbers, so that floats add them exactly. Nobody is forgotten, and nothing stays counted. Some
steps are answered from the cache, since the same rows come again and again, and one of a graph may keep sequences.
"""

import random

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls
from ensemble_graphs import load_ensemble, load_parts, spec, step
from inference_messages import build_turn, decode_reply
from onnx import TensorProto

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.sequence_rules import SequenceState

SEEDS = range(12)
GRAPHS, REQUESTS, MAX_ROWS = 3, 60, 4
MISSING_ROW = 99  # that the table of `picker` has not
VARIETY = 4  # of rows


@pytest.fixture
def engine():
    """An engine with a cache, closed at the end."""
    made = Engine(response_cache_bytes=1 << 20)
    yield made
    made.close()


@pytest.fixture
def parts(engine, load, loader):
    """The models that graphs are made of.

    `same` and `sums`; `kept` and `kept_sums`, which are cached; `tally`, which keeps sequences; and `picker`, which
    fails for an index beyond 9.
    """
    load_parts(load)
    load(onnx_models.identity(), "kept", max_batch_size=8, cache_replies=True)
    load(onnx_models.add_and_subtract(4), "kept_sums", max_batch_size=8, cache_replies=True)
    load(onnx_models.picker(), "picker", max_batch_size=8)
    state = SequenceState("state", "new_state", (1, 4), bytes(16))
    tally = onnx_models.accumulator(TensorProto.FLOAT, ("batch", 4))
    loader.load(tally, "tally", states=[state], max_batch_size=8, slots=REQUESTS)
    return engine


class Graph:
    """An ensemble of random steps from `x`, `y` and `index`, and what it makes of them."""

    def __init__(self, engine, chance, name, inner=None):
        self.name = name
        self._chance = chance
        self._steps, self._tensors = [], ["x", "y"]
        self.values = {"x": lambda given: given["x"], "y": lambda given: given["y"]}
        for number in range(chance.randint(1, 8)):
            self._add_step(number, chance.choice(["same", "sums", "kept", "kept_sums", inner or "same"]))
        self.keeps_sequences = chance.random() < 0.5
        if self.keeps_sequences:
            self._add_step(len(self._steps), "tally")
        made = self._tensors[2:]
        self.outputs = sorted(chance.sample(made, chance.randint(1, len(made))))
        steps = [*self._steps, step("picker", {"index": "index"}, {"output": "picked"})]
        chance.shuffle(steps)
        inputs = [spec("x", -1, 4), spec("y", -1, 4), spec("index", -1, datatype="INT64")]
        outputs = [*(spec(name, -1, 4) for name in self.outputs), spec("picked", -1)]
        load_ensemble(engine, name, inputs, outputs, steps, max_batch_size=8)

    def _add_step(self, number, model):
        """Add a step that reads any earlier tensors."""
        first, second = (self._chance.choice(self._tensors) for _ in range(2))
        names = [f"t{number}", f"u{number}"]
        one, other = self.values[first], self.values[second]
        if model in ("same", "kept", "tally"):
            # Of a sequence that is one request the sum is what that adds.
            self._steps.append(step(model, {"input": first}, {"output": names[0]}))
            self.values[names[0]] = one
            self._tensors.append(names[0])
            return
        if model in ("sums", "kept_sums"):
            inputs, outputs = {"a": first, "b": second}, {"sum": names[0], "difference": names[1]}
        else:
            inputs, outputs = {"x": first, "y": second, "index": "index"}, {"one": names[0], "other": names[1]}
        self._steps.append(step(model, inputs, outputs))
        self.values[names[0]] = lambda given: one(given) + other(given)
        self.values[names[1]] = lambda given: one(given) - other(given)
        self._tensors += names


def load_inner(engine):
    """`inner`: as `sums`, from `x` and `y` to `one` and `other`, with `index` for a step that nobody needs."""
    steps = [
        step("sums", {"a": "x", "b": "y"}, {"sum": "one", "difference": "other"}),
        step("picker", {"index": "index"}, {"output": "unused"}),
    ]
    inputs = [spec("x", -1, 4), spec("y", -1, 4), spec("index", -1, datatype="INT64")]
    outputs = [spec("one", -1, 4), spec("other", -1, 4)]
    load_ensemble(engine, "inner", inputs, outputs, steps, max_batch_size=8, cache_replies=True)


def make_request(chance, graph):
    """A message, and what must come of it: {output: array}, or None for an error."""
    rows = 1 if graph.keeps_sequences else chance.randint(1, MAX_ROWS)
    given = {name: np.array([[chance.randint(1, VARIETY)] * 4 for _ in range(rows)], np.float32) for name in "xy"}
    fails = chance.random() < 0.2
    index = [MISSING_ROW if fails else chance.randint(0, 9) for _ in range(rows)]
    wanted = chance.choice([[], chance.sample(graph.outputs, chance.randint(1, len(graph.outputs)))])
    expected = {name: graph.values[name](given) for name in wanted or graph.outputs}
    if not wanted or fails:
        wanted = [*wanted, "picked"] if wanted else wanted
        expected["picked"] = np.array(index, np.float32) * 1.5
    sequence = chance.randint(1, 2**62)
    request = build_turn(graph.name, given | {"index": np.array(index)}, sequence, start=True, end=True, outputs=wanted)
    return request.SerializeToString(), None if fails else expected


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_answer_each_caller_with_its_own(parts, seed):
    """Requests of several graphs at a time, some of which fail or are withdrawn."""
    chance = random.Random(seed)
    load_inner(parts)
    graphs = [Graph(parts, chance, f"graph_{number}", "inner") for number in range(GRAPHS)]
    assert set(parts.ensembles().values()) == {None}
    queue, calls = CompletionQueue(parts), []
    for _ in range(REQUESTS):
        message, expected = make_request(chance, chance.choice(graphs))
        timeout_us = chance.choice([-1] * 9 + [chance.randint(0, 500)])
        calls.append(queue.submit(message, expected, timeout_us=timeout_us))
        if chance.random() < 0.3:
            queue.flush()
        if chance.random() < 0.15:
            chance.choice(calls).cancel()
    queue.flush()
    settled = await_calls(queue, REQUESTS)
    assert {id(call) for call, _, _ in settled} == {id(call) for call in calls}
    for call, code, reply in settled:
        if code == status.OK:
            check_reply(reply, call.context)
        elif code == status.EXHAUSTED:
            # A step that has learned how long it takes is not even begun for a deadline that it would miss.
            assert "after its deadline" in reply
        else:
            # EXHAUSTED: a step would have come to its deadline in the queue.
            expected = (status.CANCELLED, status.EXPIRED, status.EXHAUSTED)
            assert code in expected or (code, call.context) == (status.INVALID, None)
    assert parts.drain(10.0)
    assert parts.pending_bytes == 0
    assert parts.statistics("tally", 1)["sequences"] == 0
    check_counts(parts, graphs, settled)


def check_reply(reply, expected):
    """Every output is exactly what NumPy makes of the caller's own numbers."""
    made = decode_reply(reply)
    assert made.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(made[name], array)


def check_counts(engine, graphs, settled):
    """Each request that reached a graph is counted once, as it ended."""
    counts = [engine.statistics(graph.name, 1) for graph in graphs]
    codes = [code for _, code, _ in settled]
    assert sum(one["success"] for one in counts) == codes.count(status.OK)
    assert sum(one["failed"] for one in counts) == codes.count(status.INVALID)
    assert sum(one["expired"] for one in counts) == codes.count(status.EXPIRED)
    assert sum(one["rejected"] for one in counts) == codes.count(status.EXHAUSTED)
    # One that was withdrawn before it was submitted is of no model.
    assert sum(one["cancelled"] for one in counts) <= codes.count(status.CANCELLED)
    assert all(one["running"] == one["queued"] == 0 for one in counts)
