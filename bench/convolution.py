"""A model that keeps the core busy: how much of a bare ONNX Runtime loop's throughput the engine reaches."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from bench.effort import Effort
from bench.engine_loop import EngineLoop
from bench.models import SEED, encode_rows
from bench.onnxruntime_loop import RuntimeLoop
from bench.rows import Figure, Goal, Row, compare
from tests import onnx_models

CHANNELS, SIZE = 96, 64
BATCH_SIZE = 8
WINDOW = 4 * BATCH_SIZE
GOAL_RATIO = 0.95


def measure(effort: Effort) -> list[Row]:
    """One row: rows a second of both, at the same batch size, on one thread and the same core in turn."""
    runs = effort.pick(200, 5)
    requests = runs * BATCH_SIZE
    model = onnx_models.convolution(channels=CHANNELS, size=SIZE)
    row = (3, SIZE, SIZE)
    with TemporaryDirectory() as folder:
        path = onnx_models.save(model, Path(folder), "convolution")
        message = encode_rows("convolution", (1, *row))
        with (
            EngineLoop(path, [message], max_batch_size=BATCH_SIZE, name="convolution") as engine,
            RuntimeLoop(path, (BATCH_SIZE, *row), seed=SEED) as runtime,
        ):
            ours, theirs = effort.interleave(lambda: engine.drive(requests, WINDOW), lambda: runtime.run(runs=runs))
    costs, floor_costs = ([result["cpu_ns"] / result["rows"] / 1000 for result in each] for each in (ours, theirs))
    speeds, floors = ([result["rows"] / result["elapsed_ns"] * 1e9 for result in each] for each in (ours, theirs))
    figures = {
        "rows_per_s": Figure(tuple(speeds)),
        "onnxruntime_rows_per_s": Figure(tuple(floors)),
        "ratio": compare(speeds, floors),
        "batch_size": Figure(tuple(result["rows"] / result["executions"] for result in ours)),
        "cpu_us_per_row": Figure(tuple(costs)),
        "onnxruntime_cpu_us_per_row": Figure(tuple(floor_costs)),
        # The same as the ratio above while nobody else uses the core, and right even then.
        "cpu_ratio": compare(floor_costs, costs),
    }
    conditions = {"mflop_per_row": round(count_flop(model, SIZE) / 1e6, 1), "rows_per_request": 1, "window": WINDOW}
    return [Row("convolution", figures, conditions, [Goal("ratio", at_least=GOAL_RATIO)])]


def count_flop(model: onnx.ModelProto, size: int) -> int:
    """Floating-point operations of a row in the convolutions, a multiplication and its addition being two.

    Every convolution of the model halves both sides of the picture.
    """
    total = 0
    for kernel in model.graph.initializer:
        if len(kernel.dims) == 4:
            size //= 2
            outputs, inputs, height, width = kernel.dims
            total += 2 * outputs * inputs * height * width * size * size
    return total
