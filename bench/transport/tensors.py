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

MODEL = "same"
# FP32 elements of a row: 64 KiB and 600 KB.
COLUMNS = (16_384, 150_000)
LOAD = {"connections": 4, "streams": 8}
# The floor copies a message once in and once out; the engine gathers, the model copies, the engine encodes.
GOAL_FLOOR_RATIO = 2.0


def measure(effort: Effort) -> list[Row]:
    """A row a size."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        onnx_models.save(onnx_models.identity(shape=("batch", "columns")), folder / "models", MODEL)
        with run_trio(folder / "models", folder) as servers:
            return [measure_size(effort, servers, columns) for columns in COLUMNS]


def measure_size(effort: Effort, servers: Sequence[Server], columns: int) -> Row:
    """The row of one size."""
    message = encode_rows(MODEL, (1, columns))
    figures = compare_servers(effort, servers, message, **LOAD)
    load = f"{LOAD['connections']}×{LOAD['streams']}"
    conditions = {"transport": TRANSPORT, "model": "identity", "tensor_bytes": 4 * columns, "load": load}
    return Row("transport_tensors", figures, conditions, [Goal("floor_cpu_ratio", at_most=GOAL_FLOOR_RATIO)])
