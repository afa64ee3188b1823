"""The native transport in `sluice serve`, beside grpcio's and beside a bare echo in C, part by part.

Each part can be run alone, as `python -m bench transport.tiny`.
"""

import importlib

from bench.effort import Effort
from bench.rows import Row

PARTS = (
    "tiny",
    "choices",
    "tensors",
    "mtls",
    "policy",
    "handshakes",
    "connections",
    "idle",
    "repositories",
    "rate",
    "convolution",
)


def measure(effort: Effort) -> list[Row]:
    """The rows of every part."""
    parts = [importlib.import_module(f"{__name__}.{part}") for part in PARTS]
    return [row for part in parts for row in part.measure(effort)]
