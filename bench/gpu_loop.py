"""A process that runs one model on a device: bare, and through the engine. It is not kept to one core."""

import base64
from pathlib import Path
from typing import Any

from bench.loops import answer_commands, read_settings
from bench.processes import CORES, Loop, pin_threads

MODEL = "model"


class DeviceLoop(Loop):
    """A model's session on a device; `run_bare` and `run_engine` run it.

    Parameters
    ----------
    message
        A request of one row to version 1 of MODEL, on the wire.
    """

    def __init__(self, model: Path, device: str, message: bytes):
        super().__init__(__name__, {"model": str(model), "device": device})
        pin_threads(self.pid, set(CORES))
        self._message = base64.b64encode(message).decode()

    def run_bare(self, rows: int, runs: int) -> float:
        """Rows a second of the session alone, in batches of so many, copies to and from the device included."""
        return rows * runs / self.run(rows=rows, runs=runs)["run_ns"] * 1e9

    def run_engine(self, rows: int, requests: int, window: int, buffer_sets: int) -> dict[str, float]:
        """Counters of the engine, and times in nanoseconds, for requests of one row in batches of up to `rows`."""
        return self.run(rows=rows, requests=requests, window=window, buffer_sets=buffer_sets, message=self._message)


def main() -> None:
    """Open the session, then run what is asked for."""
    from kernels.bare_loop import drive_session
    from kernels.closed_loop import drive_engine
    from kernels.engine import Engine
    from kernels.session import Session

    settings = read_settings()
    bare, served = (Session(settings["model"], device=settings["device"]) for _ in range(2))
    engine = Engine()
    loaded: dict[str, int] = {}

    def run(*, rows: int, runs: int = 0, requests: int = 0, window: int = 0, buffer_sets: int = 0, message: str = ""):
        if runs:
            return {"run_ns": drive_session(bare, rows, runs)}
        wanted = {"max_batch_size": rows, "buffer_sets": buffer_sets}
        if loaded != wanted:
            engine.load(MODEL, 1, served, **wanted)
            loaded.update(wanted)
        before = engine.statistics(MODEL, 1)
        result = drive_engine(engine, [base64.b64decode(message)], requests, window)
        after = engine.statistics(MODEL, 1)
        return describe(result, {name: after[name] - before[name] for name in after})

    answer_commands(run)
    engine.close()


def describe(result: Any, counted: dict[str, int]) -> dict[str, float]:
    """What a run of the engine gave."""
    return {"unanswered": result.failed, "loop_ns": result.elapsed_ns, **counted}


if __name__ == "__main__":
    main()
