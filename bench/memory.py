"""Resident size over two million requests of mixed sizes, some refused: of the real server, and of the engine.

The requests come in rounds of the same mix; the size is read after each. The first half is warm-up: pools fill, the
allocator finds its level. What a leak would show is the slope of a line through the rest.
"""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np

from bench.effort import Effort
from bench.engine_loop import EngineLoop
from bench.h2load import run_load, write_frame
from bench.models import SEED, encode_rows
from bench.processes import BenchError, read_resident_bytes
from bench.rows import Figure, Row
from bench.servers import Server, run_sluice
from tests import onnx_models

MODEL = "same"
MAX_BATCH_SIZE = 32
CONFIG = f"max_batch_size: {MAX_BATCH_SIZE}"
# Rows and columns: from 16 bytes to 256 KiB, on both sides of what the pools of the kernels keep.
SHAPES = ((1, 4), (1, 64), (3, 200), (16, 256), (32, 512), (32, 2048))
VALID = {f"{rows}×{columns}": encode_rows(MODEL, (rows, columns)) for rows, columns in SHAPES}
REFUSED = {
    "malformed": VALID["1×64"][:-3],
    "random bytes": np.random.default_rng(SEED).bytes(80),
    "unknown model": encode_rows("nobody", (1, 4)),
    "wrong shape": encode_rows(MODEL, (4,)),
    "too many rows": encode_rows(MODEL, (MAX_BATCH_SIZE + 1, 4)),
}
# Of every round: as many requests of each kind.
KINDS = len(VALID) + len(REFUSED)
WARM_UP = 0.5
CLIENTS, STREAMS = 8, 32


def measure(effort: Effort) -> list[Row]:
    """A row for the server, and one for the engine alone."""
    rounds = effort.pick(80, 5)
    requests = effort.pick(2_000_000, 1_100)
    share = -(-requests // (rounds * KINDS))
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = onnx_models.save(
            onnx_models.identity(shape=("batch", "columns")), folder / "models", MODEL, config=CONFIG
        )
        with run_sluice(folder / "models", folder) as server:
            sizes = watch_server(server, folder, rounds, share)
        engine_share = share * effort.pick(3, 1)
        messages = [*VALID.values(), *REFUSED.values()]
        with EngineLoop(path, messages, max_batch_size=MAX_BATCH_SIZE, name=MODEL) as loop:
            engine_sizes = watch_engine(loop, rounds, engine_share)
    return [
        describe_sizes("memory", sizes, share * KINDS),
        describe_sizes("memory_engine", engine_sizes, engine_share * KINDS),
    ]


def watch_server(server: Server, folder: Path, rounds: int, share: int) -> list[int]:
    """The server's resident size before the first round and after each."""
    frames = []
    for name, message in VALID.items():
        frames.append((write_frame(folder / f"{name}.frame", message), len(server.call(message))))
    for name, message in REFUSED.items():
        check_refused(server, name, message)
        frames.append((write_frame(folder / f"{name}.frame", message), None))
    sizes = [read_resident_bytes(server.pid)]
    for _ in range(rounds):
        for frame, reply_bytes in frames:
            run_load(server.port, frame, clients=CLIENTS, streams=STREAMS, requests=share, reply_bytes=reply_bytes)
        sizes.append(read_resident_bytes(server.pid))
    return sizes


def check_refused(server: Server, name: str, message: bytes) -> None:
    """Raise BenchError unless a request is refused as it should be."""
    expected = grpc.StatusCode.NOT_FOUND if name == "unknown model" else grpc.StatusCode.INVALID_ARGUMENT
    try:
        server.call(message)
    except grpc.RpcError as error:
        if error.code() == expected:
            return
        raise BenchError(f"{name}: expected {expected.name}, given {error.code().name}: {error.details()}") from None
    raise BenchError(f"{name}: expected {expected.name}, given a reply")


def watch_engine(loop: EngineLoop, rounds: int, share: int) -> list[int]:
    """The engine's process's resident size before the first round and after each."""
    sizes = [read_resident_bytes(loop.pid)]
    for _ in range(rounds):
        loop.drive(share * KINDS, CLIENTS * STREAMS, failing=len(REFUSED))
        sizes.append(read_resident_bytes(loop.pid))
    return sizes


def describe_sizes(name: str, sizes: Sequence[int], round_requests: int) -> Row:
    """The row of a series of resident sizes, one a round."""
    rest = sizes[int(len(sizes) * WARM_UP) :]
    slope, error = fit_slope(rest)
    figures = {
        "start_mib": Figure((sizes[0] / 2**20,)),
        "after_warm_up_mib": Figure((rest[0] / 2**20,)),
        "end_mib": Figure((sizes[-1] / 2**20,)),
        "slope_bytes_per_request": Figure((slope / round_requests,)),
        "slope_error_bytes_per_request": Figure((error / round_requests,)),
        # A leak shows in every round, an allocator's new high-water mark in one.
        "growth_bytes_per_request": Figure(
            tuple((after - before) / round_requests for before, after in pairwise(rest))
        ),
    }
    conditions = {
        "model": "identity",
        "requests": round_requests * (len(sizes) - 1),
        "refused_share": round(len(REFUSED) / KINDS, 2),
    }
    notes = {
        "kinds": [*VALID, *REFUSED],
        "is_flat": abs(slope) <= 2 * error,
        "resident_mib": [round(size / 2**20, 2) for size in sizes],
    }
    return Row(name, figures, conditions, notes=notes)


def fit_slope(values: Sequence[float]) -> tuple[float, float]:
    """Slope of the line of least squares through equally spaced values, and its standard error."""
    steps = range(len(values))
    fit = statistics.linear_regression(steps, values)
    residual = sum((value - fit.intercept - fit.slope * step) ** 2 for step, value in zip(steps, values, strict=True))
    spread = sum((step - statistics.fmean(steps)) ** 2 for step in steps)
    return fit.slope, (residual / (len(values) - 2) / spread) ** 0.5
