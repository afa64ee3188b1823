"""A model that is busy and what waits for it, for tests of who comes next."""

import numpy as np
from engine_calls import await_calls, nonce_rows
from inference_messages import decode_reply, encode_request

from kernels import status
from kernels.completions import CompletionQueue

# Of the request that keeps the model busy: a few hundred milliseconds.
BUSY_ITERATIONS = 500_000.0
# Of rows that say whose they are: none takes more than this.
MOST_REQUESTS = 100


class WaitingLine:
    """Requests for `moody` (onnx_models.slow_by_value): the largest of a request's numbers says how long it takes."""

    def __init__(self, engine):
        self._engine = engine
        self._queue = CompletionQueue(engine)
        self._rows = {}

    def occupy(self):
        """Give the model something to do, and wait until it does."""
        self._queue.submit(encode_request("moody", {"input": np.full((1, 4), BUSY_ITERATIONS, np.float32)}), "busy")
        self._queue.flush()
        self._rows["busy"] = None
        # A run before it may still be counted, though it is answered.
        while (counts := self._engine.statistics("moody", 1))["queued"] > 0 or counts["running"] == 0:
            pass

    def add(self, name, *, rows=1, deadline_us=-1, **parameters):
        """Put a request into the queue, with rows of its own; returns its Call."""
        assert len(self._rows) < MOST_REQUESTS
        self._rows[name] = nonce_rows(len(self._rows), rows)
        message = encode_request("moody", {"input": self._rows[name]}, **parameters)
        call = self._queue.submit(message, name, timeout_us=deadline_us)
        self._queue.flush()
        return call

    def take(self, count):
        """The next that are settled, in that order, as (name, code, text or None); answers have their own rows."""
        settled = await_calls(self._queue, count)
        return [(call.context, code, self._check(call.context, code, reply)) for call, code, reply in settled]

    def take_all(self):
        """Names of all that are answered, in order; every one must be."""
        settled = self.take(self._queue.in_flight)
        assert {code for _, code, _ in settled} <= {status.OK}
        return [name for name, _, _ in settled if name != "busy"]

    def _check(self, name, code, reply):
        if code != status.OK:
            return reply
        if self._rows[name] is not None:
            np.testing.assert_array_equal(decode_reply(reply)["output"], self._rows[name])
        return None
