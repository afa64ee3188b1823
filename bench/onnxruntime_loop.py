"""A process that runs a model through ONNX Runtime's own Python API, over and over: the floor of what serving costs."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.loops import answer_commands, read_settings
from bench.processes import Loop


class RuntimeLoop(Loop):
    """ONNX Runtime on one thread; `run(runs=…)` runs one batch that often.

    Parameters
    ----------
    shape
        Of the batch, rows first.
    """

    def __init__(self, model: Path, shape: tuple[int, ...], *, seed: int):
        super().__init__(__name__, {"model": str(model), "shape": shape, "seed": seed})


def main() -> None:
    """Open the model, then run what is asked for."""
    import onnxruntime

    settings = read_settings()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(settings["model"], options, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(settings["seed"]).standard_normal(settings["shape"]).astype(np.float32)
    feed = {session.get_inputs()[0].name: batch}

    def run(*, runs: int) -> dict[str, Any]:
        for _ in range(runs):
            session.run(None, feed)
        return {"rows": runs * len(batch)}

    answer_commands(run)


if __name__ == "__main__":
    main()
