"""gRPC load from h2load (Debian: nghttp2-client), on the load's core, with a check that every call was answered."""

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import LOAD_CORE, BenchError, pinned

PREFIX_BYTES = 5
INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
HEADERS = ("content-type: application/grpc", "te: trailers")
# (clients, streams of each): 4 connections of 8 calls at a time, and 8 of 32.
LOADS = ((4, 8), (8, 32))


@dataclass(frozen=True)
class LoadResult:
    """What a load took, and the bytes of gRPC messages that came back, their prefixes among them."""

    requests: int
    elapsed_s: float
    mean_us: float
    reply_bytes: int


def write_frame(path: Path, message: bytes) -> Path:
    """Write a message as gRPC frames it, for `run_load`; returns the path."""
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


def run_load(
    port: int,
    frame: Path,
    *,
    clients: int,
    streams: int,
    requests: int,
    reply_bytes: int | None,
    path: str = INFER_PATH,
    headers: Sequence[str] = HEADERS,
) -> LoadResult:
    """Send requests and wait for all of them.

    Parameters
    ----------
    reply_bytes
        Size of the message that every call must be answered with, which a failed gRPC call never is; None expects
        no message at all: every call must fail.

    Raises
    ------
    BenchError
        A call got no answer, or another one than expected.
    """
    executable = shutil.which("h2load")
    if executable is None:
        raise BenchError("h2load was not found; on Debian: apt-get install nghttp2-client")
    counts = [f"-c{clients}", f"-m{streams}", f"-n{requests}", "-t1"]
    named = [part for header in headers for part in ("-H", header)]
    with pinned(LOAD_CORE):
        done = subprocess.run(
            [executable, *counts, "-d", frame, *named, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True
        )
    if done.returncode != 0:
        raise BenchError(f"h2load ended with {done.returncode}: {done.stderr or done.stdout}")
    result = parse_result(done.stdout)
    expected = 0 if reply_bytes is None else (PREFIX_BYTES + reply_bytes) * requests
    if result.requests != requests or result.reply_bytes != expected:
        raise BenchError(
            f"h2load: expected {requests} answers of {expected} bytes in all, "
            f"given {result.requests} of {result.reply_bytes}:\n{done.stdout}"
        )
    return result


def parse_result(output: str) -> LoadResult:
    """Read what h2load prints at its end."""
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m|h)\b", output)
    succeeded = re.search(r"(\d+) succeeded", output)
    data = re.search(r"headers \(space savings .*?, \S+ \((\d+)\) data", output)
    times = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", output)
    if not (finished and succeeded and data and times):
        raise BenchError(f"h2load printed no result:\n{output}")
    seconds = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    return LoadResult(
        requests=int(succeeded[1]),
        elapsed_s=float(finished[1]) * seconds[finished[2]],
        mean_us=float(times[1]) * seconds[times[2]] * 1e6,
        reply_bytes=int(data[1]),
    )
