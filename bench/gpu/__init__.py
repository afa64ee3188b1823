"""A GPU under load: how much of what a bare session can do the engine and the whole server reach, and what is idle.

`python -m bench gpu` needs this repository and a GPU. Without one, or with `--quick`, the CPU stands in for it, with
models so small that only the code is shown to run. Each model can be measured alone, as `python -m bench
gpu.bert_base_fp16`; one takes about five minutes.
"""

import importlib

from bench.effort import Effort
from bench.rows import Row

PARTS = ("resnet50_fp16", "resnet50_fp32", "bert_base_fp16")


def measure(effort: Effort) -> list[Row]:
    """The rows of every model."""
    parts = [importlib.import_module(f"{__name__}.{part}") for part in PARTS]
    return [row for part in parts for row in part.measure(effort)]
