"""A convolutional model through the whole server, beside ONNX Runtime alone at the same batch.

Measured twice: with the server's threads on the server's core alone, where what reads and writes takes time from the
model, and with those threads on the load's core as well.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.convolution import BATCH_SIZE, CHANNELS, SIZE, WINDOW, count_flop
from bench.effort import Effort
from bench.loadgen import Calls
from bench.models import SEED, encode_rows
from bench.onnxruntime_loop import RuntimeLoop
from bench.processes import LOAD_CORE, SERVER_CORE, pin_threads
from bench.rows import Figure, Goal, Row, compare
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, Server, prepare_load, run_sluice
from bench.transport.comparison import DURATION_S, QUICK_DURATION_S
from tests import onnx_models

MODEL = "convolution"
CONNECTIONS = 4
# One thread runs the model, as in the loop.
OPTIONS = ("--workers=1", "--intra-op-threads=1")
GOAL_RATIO = 0.97


def measure(effort: Effort) -> list[Row]:
    """One row: rows a second of both, one row a call, as many calls at a time as four batches have rows."""
    model = onnx_models.convolution(channels=CHANNELS, size=SIZE)
    shape = (3, SIZE, SIZE)
    message = encode_rows(MODEL, (1, *shape))
    seconds = effort.pick(DURATION_S, QUICK_DURATION_S)
    runs = effort.pick(200, 5)
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = onnx_models.save(model, folder / "models", MODEL, config=f"max_batch_size: {BATCH_SIZE}")
        with (
            run_sluice(folder / "models", folder, options=(*TRANSPORT_OPTIONS, *OPTIONS)) as server,
            RuntimeLoop(path, (BATCH_SIZE, *shape), seed=SEED) as runtime,
        ):
            load = {"connections": CONNECTIONS, "streams": WINDOW // CONNECTIONS, "duration_s": seconds}
            files = prepare_load(server, message, folder)
            narrow, wide = (
                partial(measure_on, server, cores, *files, **load)
                for cores in ({SERVER_CORE}, {SERVER_CORE, LOAD_CORE})
            )
            ours, spread, theirs = effort.interleave(narrow, wide, lambda: runtime.run(runs=runs))
    speeds, spread_speeds = ([calls.requests / calls.seconds for _, calls in each] for each in (ours, spread))
    floors = [result["rows"] / result["elapsed_ns"] * 1e9 for result in theirs]
    costs, floor_costs = [cpu_us for cpu_us, _ in ours], [each["cpu_ns"] / each["rows"] / 1000 for each in theirs]
    figures = {
        "rows_per_s": Figure(tuple(speeds)),
        "spread_rows_per_s": Figure(tuple(spread_speeds)),
        "onnxruntime_rows_per_s": Figure(tuple(floors)),
        "ratio": compare(speeds, floors),
        "spread_ratio": compare(spread_speeds, floors),
        "cpu_us_per_row": Figure(tuple(costs)),
        "onnxruntime_cpu_us_per_row": Figure(tuple(floor_costs)),
        "cpu_ratio": compare(floor_costs, costs),
        "p99_latency_us": Figure(tuple(calls.latency_us["p99"] for _, calls in ours)),
    }
    conditions = {
        "transport": TRANSPORT,
        "mflop_per_row": round(count_flop(model, SIZE) / 1e6, 1),
        "message_bytes": len(message),
        "max_batch_size": BATCH_SIZE,
        "window": WINDOW,
    }
    goals = [Goal(name, at_least=GOAL_RATIO) for name in ("ratio", "spread_ratio")]
    return [Row("transport_convolution", figures, conditions, goals)]


def measure_on(server: Server, cores: set[int], frame: Path, reply_bytes: int, **load: float) -> tuple[float, Calls]:
    """One repeat, with the server's threads on some cores."""
    pin_threads(server.pid, cores)
    return server.measure_calls(frame, reply_bytes, **load)
