"""A convolutional model through the whole server, beside ONNX Runtime alone at the same batch."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.convolution import BATCH_SIZE, CHANNELS, SIZE, WINDOW, count_flop
from bench.effort import Effort
from bench.models import SEED, encode_rows
from bench.onnxruntime_loop import RuntimeLoop
from bench.rows import Figure, Goal, Row, compare
from bench.servers import TRANSPORT, TRANSPORT_OPTIONS, prepare_load, run_sluice
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
            measure_server = partial(server.measure_calls, *prepare_load(server, message, folder), **load)
            ours, theirs = effort.interleave(measure_server, lambda: runtime.run(runs=runs))
    speeds, floors = (
        [calls.requests / calls.seconds for _, calls in ours],
        [result["rows"] / result["elapsed_ns"] * 1e9 for result in theirs],
    )
    costs, floor_costs = [cpu_us for cpu_us, _ in ours], [each["cpu_ns"] / each["rows"] / 1000 for each in theirs]
    figures = {
        "rows_per_s": Figure(tuple(speeds)),
        "onnxruntime_rows_per_s": Figure(tuple(floors)),
        "ratio": compare(speeds, floors),
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
    return [Row("transport_convolution", figures, conditions, [Goal("ratio", at_least=GOAL_RATIO)])]
