"""MLServer with the perceptron as a custom runtime, in its own process: no workers beside it, no metrics, no logs."""

import json
import shutil
from pathlib import Path

from bench.peers.environments import Environment, with_variables

PACKAGE = "mlserver"
PACKAGES = ("mlserver==1.7.1", "numpy")
READY = "Uvicorn running on"
MODEL_SETTINGS = {"name": "tiny", "implementation": "mlserver_runtime.Perceptron"}


def prepare(environment: Environment, weights: Path, folder: Path, port: int, spare_port: int) -> list[str | Path]:
    """Write what the server reads; returns the command that starts it with gRPC on `port`."""
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": spare_port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(MODEL_SETTINGS))
    shutil.copy(weights, folder / "weights.npz")
    shutil.copy(Path(__file__).with_name("mlserver_runtime.py"), folder)
    start = [environment.python, environment.folder / "bin" / "mlserver", "start", folder]
    return with_variables({"PYTHONPATH": folder}, start)
