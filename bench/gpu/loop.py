"""A process that runs one model on a device: bare, and through the engine. It is not kept to one core."""

import base64
from pathlib import Path
from typing import Any

from bench.loops import answer_commands, read_settings
from bench.processes import CORES, BenchError, Loop

MODEL = "model"
# How a bare session gets its tensors: given to Run, bound by an IOBinding, or at the places of a recorded run.
RUN, BIND, RECORD = "run", "bind", "record"


class DeviceLoop(Loop):
    """A model's sessions on a device; `run_bare` and `run_engine` run them.

    Parameters
    ----------
    message
        A request of one row to version 1 of MODEL, on the wire.
    """

    def __init__(self, model: Path, device: str, message: bytes):
        super().__init__(__name__, {"model": str(model), "device": device}, cores=set(CORES))
        self._message = base64.b64encode(message).decode()

    def run_bare(self, way: str, rows: int, runs: int) -> float:
        """Rows a second of the session alone, in batches of so many, copies to and from the device included.

        Raises
        ------
        BenchError
            The device cannot run the model in that way.
        """
        return rows * runs / self._ask(way=way, rows=rows, runs=runs)["run_ns"] * 1e9

    def run_engine(self, way: str, rows: int, requests: int, window: int, buffer_sets: int) -> dict[str, float]:
        """Counters of the engine, and times in nanoseconds, for requests of one row in batches of up to `rows`."""
        answer = self._ask(
            way=way, rows=rows, requests=requests, window=window, buffer_sets=buffer_sets, message=self._message
        )
        if answer["unanswered"]:
            raise BenchError(f"the engine left {answer['unanswered']} requests unanswered")
        return answer

    def _ask(self, **command: Any) -> dict[str, Any]:
        answer = self.run(**command)
        if "problem" in answer:
            raise BenchError(answer["problem"])
        return answer


class Runner:
    """The child's side: sessions are opened when they are first needed, bare ones and the engine's."""

    def __init__(self, model: str, device: str):
        from kernels.engine import Engine

        self._model, self._device = model, device
        self._engine = Engine()
        self._bare: dict[tuple, Any] = {}
        self._loaded: tuple = ()

    def run(self, *, way: str, rows: int, runs: int = 0, **driven: Any) -> dict[str, Any]:
        """Run the session alone, `runs` times, or else requests through the engine."""
        from kernels.session import SessionError

        try:
            return self._run_bare(way, rows, runs) if runs else self._run_engine(way, rows, **driven)
        except (SessionError, RuntimeError) as error:
            return {"problem": f"{way}: {error}"}

    def close(self) -> None:
        """Stop the engine."""
        self._engine.close()

    def _open(self, way: str, rows: int) -> Any:
        from kernels.session import Session

        session = Session(self._model, device=self._device, records=way == RECORD)
        if way == RECORD:
            session.record_batches([rows])
        return session

    def _run_bare(self, way: str, rows: int, runs: int) -> dict[str, Any]:
        from kernels.bare_loop import drive_session

        key = (RECORD, rows) if way == RECORD else (RUN,)
        if key not in self._bare:
            self._bare[key] = self._open(way, rows)
        return {"run_ns": drive_session(self._bare[key], rows, runs, binds=way == BIND)}

    def _run_engine(
        self, way: str, rows: int, *, requests: int, window: int, buffer_sets: int, message: str
    ) -> dict[str, Any]:
        from kernels.closed_loop import drive_engine

        if self._loaded != (way, rows, buffer_sets):
            self._engine.load(MODEL, 1, self._open(way, rows), max_batch_size=rows, buffer_sets=buffer_sets)
            self._loaded = (way, rows, buffer_sets)
        before = self._engine.statistics(MODEL, 1)
        result = drive_engine(self._engine, [base64.b64decode(message)], requests, window)
        after = self._engine.statistics(MODEL, 1)
        counted = {name: after[name] - before[name] for name in after}
        return {"unanswered": result.failed, "loop_ns": result.elapsed_ns, **counted}


def main() -> None:
    """Run what is asked for."""
    runner = Runner(**read_settings())
    answer_commands(runner.run)
    runner.close()


if __name__ == "__main__":
    main()
