"""A process with an engine alone, driven by the native closed loop: no transport, and no Python while it runs."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.loops import answer_commands, read_settings
from bench.processes import BenchError, Loop


class EngineLoop(Loop):
    """The engine with one model; `drive` runs it.

    Parameters
    ----------
    model
        The model's file; it is served as `name`, version 1.
    messages
        Requests on the wire, sent in turn.
    """

    def __init__(self, model: Path, messages: Sequence[bytes], *, max_batch_size: int, name: str = "tiny"):
        self._n_messages = len(messages)
        encoded = [base64.b64encode(message).decode() for message in messages]
        settings = {"model": str(model), "name": name, "max_batch_size": max_batch_size}
        super().__init__(__name__, settings)
        self.run(messages=encoded)

    def drive(self, requests: int, window: int, *, failing: int = 0) -> dict[str, float]:
        """Send requests, `window` at a time; returns counters, and times in nanoseconds.

        Raises
        ------
        BenchError
            Of each round of messages, not exactly `failing` were refused.
        """
        result = self.run(requests=requests, window=window)
        if result["unanswered"] * self._n_messages != failing * requests:
            raise BenchError(
                f"{result['unanswered']} of {requests} requests got no reply; expected {failing} of {self._n_messages}"
            )
        return result


def main() -> None:
    """Load the model, take the messages, then run what is asked for."""
    from kernels.closed_loop import drive_engine
    from kernels.engine import Engine
    from kernels.runtime import configure_runtime
    from kernels.session import Session

    settings = read_settings()
    configure_runtime(intra_op_threads=1)
    engine, name = Engine(), settings["name"]
    engine.load(name, 1, Session(settings["model"]), max_batch_size=settings["max_batch_size"])
    kept: list[bytes] = []

    def run(*, messages: Sequence[str] = (), requests: int = 0, window: int = 0) -> dict[str, Any]:
        if messages:
            kept[:] = map(base64.b64decode, messages)
            return {}
        before = engine.statistics(name, 1)
        result = drive_engine(engine, kept, requests, window)
        after = engine.statistics(name, 1)
        return {"unanswered": result.failed, **{counter: after[counter] - before[counter] for counter in after}}

    answer_commands(run)
    engine.close()


if __name__ == "__main__":
    main()
