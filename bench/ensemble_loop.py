"""A process with an engine alone that serves a chain of models and each of them, driven by the native closed loop."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.loops import answer_commands, read_settings
from bench.processes import BenchError, Loop


class EnsembleLoop(Loop):
    """The engine with models and an ensemble `chain` of them; `drive` runs one.

    Parameters
    ----------
    models
        The repository that holds the parts, version 1 of each.
    messages
        A request on the wire for the ensemble and for each part, by name.
    parts
        The ensemble's models, in their order.
    """

    def __init__(
        self, models: Path, messages: Mapping[str, bytes], parts: Sequence[str], *, columns: int, max_batch_size: int
    ):
        settings = {"models": str(models), "parts": parts, "columns": columns, "max_batch_size": max_batch_size}
        super().__init__(__name__, settings)
        self.run(messages={name: base64.b64encode(message).decode() for name, message in messages.items()})

    def drive(self, name: str, requests: int, window: int) -> int:
        """Send requests to one model, `window` at a time; the CPU time in nanoseconds.

        Raises
        ------
        BenchError
            A request got no reply.
        """
        result = self.run(name=name, requests=requests, window=window)
        if result["unanswered"]:
            raise BenchError(f"{result['unanswered']} of {requests} requests to {name} got no reply")
        return result["cpu_ns"]


def main() -> None:
    """Load the models and the ensemble, take the messages, then run what is asked for."""
    from kernels.closed_loop import drive_engine
    from kernels.engine import Engine
    from kernels.runtime import configure_runtime
    from kernels.session import Session

    settings = read_settings()
    configure_runtime(intra_op_threads=1)
    engine, size = Engine(), settings["max_batch_size"]
    for part in settings["parts"]:
        engine.load(part, 1, Session(Path(settings["models"], part, "1", "model.onnx")), max_batch_size=size)
    made = engine.prepare_ensemble("chain", 1, make_chain(settings["parts"], settings["columns"]), max_batch_size=size)
    engine.exchange({("chain", 1): made})
    kept: dict[str, bytes] = {}

    def run(
        *, messages: Mapping[str, str] | None = None, name: str = "", requests: int = 0, window: int = 0
    ) -> dict[str, Any]:
        if messages:
            kept.update({name: base64.b64decode(message) for name, message in messages.items()})
            return {}
        return {"unanswered": drive_engine(engine, [kept[name]], requests, window).failed}

    answer_commands(run)
    engine.close()


def make_chain(parts: Sequence[str], columns: int) -> Any:
    """The graph from `input` through every part to `output`."""
    from kernels.ensemble import Ensemble, EnsembleStep
    from kernels.session import TensorSpec

    tensors = ["input", *(f"between_{index}" for index in range(1, len(parts))), "output"]
    specs = [TensorSpec(name, "FP32", (-1, columns), ("", "")) for name in ("input", "output")]
    steps = [
        EnsembleStep(part, -1, {"input": tensors[index]}, {"output": tensors[index + 1]})
        for index, part in enumerate(parts)
    ]
    return Ensemble(specs[:1], specs[1:], steps)


if __name__ == "__main__":
    main()
