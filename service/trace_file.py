"""Traces as Triton writes them: JSON arrays in files of which each is complete after every write."""

import json
import os
from pathlib import Path
from typing import BinaryIO

from certs.files import SECRET_MODE, replace_file
from kernels.trace import Trace

# Triton's names of a request's moments, each with ours; a request is queued when it arrives.
MOMENTS = {
    "REQUEST_START": "arrival_ns",
    "QUEUE_START": "arrival_ns",
    "COMPUTE_START": "taken_ns",
    "COMPUTE_INPUT_END": "gathered_ns",
    "COMPUTE_OUTPUT_START": "ran_ns",
    "COMPUTE_END": "ended_ns",
    "REQUEST_END": "ended_ns",
}
END = "\n]\n"


class TraceFile:
    """One file after another, each made anew when its first trace comes.

    Parameters
    ----------
    path
        The file; with a limit of traces a file, of which each has its number behind this name.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: BinaryIO | None = None
        self._number = self._written = self._in_file = self._end = 0

    def append(self, traces: list[Trace], traces_per_file: int) -> None:
        """Write traces; 0 a file is without limit. Raises OSError."""
        while traces:
            if self._file is None:
                self._file = self._open(is_numbered=traces_per_file > 0)
            room = max(1, traces_per_file - self._in_file) if traces_per_file else len(traces)
            self._write(self._file, traces[:room])
            traces = traces[room:]
            if traces_per_file and self._in_file >= traces_per_file:
                self.close()

    def close(self) -> None:
        """End the file; the next trace begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._in_file = self._end = 0

    def _open(self, *, is_numbered: bool) -> BinaryIO:
        path = self._path
        if is_numbered:
            path = path.with_name(f"{path.name}.{self._number}")
            self._number += 1
        # Request ids may be anybody's names; and a link there is replaced, not what it leads to.
        replace_file(path, ("[" + END).encode(), SECRET_MODE)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb")

    def _write(self, file: BinaryIO, traces: list[Trace]) -> None:
        """Put traces before the array's end."""
        lines = []
        for trace in traces:
            self._written += 1
            lines += [json.dumps(entry) for entry in describe_trace(self._written, trace)]
        text = ("," if self._in_file else "[") + "\n" + ",\n".join(lines)
        file.seek(self._end)
        file.write((text + END).encode())
        file.flush()
        self._end += len(text.encode())
        self._in_file += len(traces)


def describe_trace(number: int, trace: Trace) -> list[dict[str, object]]:
    """The two entries of one request: what it was, and when it was where."""
    model: dict[str, object] = {"id": number, "model_name": trace.model, "model_version": trace.version}
    if trace.request_id:
        model["request_id"] = trace.request_id
    moments = [{"name": name, "ns": getattr(trace, moment)} for name, moment in MOMENTS.items()]
    return [model, {"id": number, "timestamps": moments}]
