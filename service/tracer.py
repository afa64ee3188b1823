"""Takes what the kernels have sampled and writes it to the trace file, in a thread of its own."""

import logging
import threading
from pathlib import Path

from kernels.engine import Engine
from service.trace_file import TraceFile
from service.trace_settings import TraceSettings

# How long the kernels' book of 1,024 traces fills before it is emptied, in seconds.
POLL_S = 0.2

logger = logging.getLogger(__name__)


class Tracer:
    """The trace settings of a server and what comes of them.

    Parameters
    ----------
    path
        The file that traces go to; None when nothing can be traced, and then there is no thread.
    """

    def __init__(self, engine: Engine, path: Path | None):
        self._engine = engine
        self.settings = TraceSettings("" if path is None else str(path), engine.set_tracing)
        self._file = None if path is None else TraceFile(path)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)
        if self._file is not None:
            self._thread.start()

    def close(self) -> None:
        """Write what was sampled until now, and end."""
        self._is_over.set()
        if self._file is not None:
            self._thread.join()
            self._write(self._file)
            self._file.close()

    def _run(self) -> None:
        while not self._is_over.wait(POLL_S):
            self._write(self._file)

    def _write(self, file: TraceFile) -> None:
        traces, lost = self._engine.take_traces()
        try:
            file.append([trace for trace in traces if self.settings.take(trace.model)], self.settings.traces_per_file)
        except OSError as error:
            logger.error("traces cannot be written", extra={"reason": error.strerror, "traces": len(traces)})
        if lost:
            logger.warning("traces lost", extra={"traces": lost})
