"""Large tensors, in and out: a model that returns what it is given."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.effort import Effort
from bench.models import encode_rows
from bench.rows import Goal, Row
from bench.servers import TRANSPORT, Server
from bench.transport.comparison import compare_servers, run_trio
from tests import onnx_models

# FP32 elements of a row, 64 KiB and 600 KB, and what a call may cost in CPU time, µs.
GOALS_US = {16_384: 45.0, 150_000: 400.0}
LOAD = {"connections": 4, "streams": 8}
# Copies of the payload in user space: in, into the message, on which the model runs; out, none, since it writes into
# the reply, which is sent from where it lies. The floor copies it once in and once out.
COPIES_IN, COPIES_OUT = 1, 0


def measure(effort: Effort) -> list[Row]:
    """A row a size."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for columns in GOALS_US:
            model = onnx_models.identity(shape=(1, columns))
            onnx_models.save(model, folder / "models", name_model(columns), config="max_batch_size: 0")
        with run_trio(folder / "models", folder) as servers:
            return [measure_size(effort, servers, *goal) for goal in GOALS_US.items()]


def name_model(columns: int) -> str:
    """The model that takes rows of a size, one a run."""
    return f"same_{columns}"


def measure_size(effort: Effort, servers: Sequence[Server], columns: int, goal_us: float) -> Row:
    """The row of one size."""
    message = encode_rows(name_model(columns), (1, columns))
    figures = compare_servers(effort, servers, message, **LOAD)
    load = f"{LOAD['connections']}×{LOAD['streams']}"
    conditions = {
        "transport": TRANSPORT,
        "model": "identity",
        "tensor_bytes": 4 * columns,
        "copies_in": COPIES_IN,
        "copies_out": COPIES_OUT,
        "load": load,
    }
    return Row("transport_tensors", figures, conditions, [Goal("cpu_us_per_request", at_most=goal_us)])
