"""Sequences on an engine: models that keep them, and single requests of them."""

import numpy as np
import onnx_models
from inference_messages import build_turn, decode_reply

from kernels.sequence_rules import SequenceRules, SequenceState
from kernels.session import Session
from tests.kernels.ways import WORKERS

# Long enough that no test sees it, where silence is not what it is about.
LONG_US = 600_000_000
# Short enough to wait for.
SHORT_US = 20_000
SUM_STATE = SequenceState("state", "new_state", (1, 2), bytes(16))
PICK_STATE = SequenceState("state", "new_state", (1,), bytes(8))


class SequenceLoader:
    """Loads models that keep sequences into an engine, from files that are made on the spot."""

    def __init__(self, engine, folder, way=WORKERS):
        self._engine = engine
        self._folder = folder
        self._way = way

    def prepare(self, model, name, version=1, *, slots=8, idle_us=LONG_US, controls=(), states=(), shown=(), **options):
        """A version that nobody can call yet."""
        sessions = self._open_sessions(onnx_models.save(model, self._folder, name, version), options)
        enough_rows = options.pop("enough_rows", 0)
        rules = SequenceRules(
            sessions[0],
            slots=slots,
            idle_us=idle_us,
            enough_rows=enough_rows,
            controls=controls,
            states=states,
            shown=shown,
        )
        return self._engine.prepare(name, version, sessions, sequences=rules, **options)

    def _open_sessions(self, path, options):
        """The sessions of a model in the way of the test, which leaves in the options what the engine needs of it."""
        count = 1
        if self._way.buffer_sets > 0:
            count = max(self._way.sessions, options.pop("instance_count", 1))
            options["buffer_sets"] = self._way.buffer_sets
        sessions = [Session(path, device=self._way.device) for _ in range(count)]
        if "narrowed" in options:
            shapes = options.pop("narrowed")
            for session in sessions:
                session.narrow_inputs(shapes)
        return sessions

    def load(self, model, name, version=1, **options):
        """Put a version in place; what it replaces is retired."""
        replaced = self._engine.exchange({(name, version): self.prepare(model, name, version, **options)})
        self._engine.retire(replaced)

    def load_sum(self, **options):
        """INT64 sums of two columns, as the model `sum`."""
        self.load(onnx_models.accumulator(), "sum", **{"max_batch_size": 8, "states": [SUM_STATE]} | options)


def add(engine, sequence, value, model="sum", **options):
    """Add a number to a sequence's sums; the sums then."""
    timeout_us = options.pop("timeout_us", 0)
    message = encode_addend(sequence, value, model, **options)
    return decode_reply(engine.infer(message, timeout_us=timeout_us))["output"].tolist()


def encode_addend(sequence, value, model="sum", **options):
    """The request of `add`."""
    rows = np.array([[value, -value]], np.int64)
    return build_turn(model, {"input": rows}, sequence, **options).SerializeToString()


def encode_pick(sequence, index, **options):
    """A request to `pick`, which adds the index to a sequence's sum."""
    return build_turn("pick", {"index": np.array([index], np.int64)}, sequence, **options).SerializeToString()
