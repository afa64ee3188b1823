"""Triton with its Python backend: dynamic batching without a delay, gRPC alone, no metrics."""

import os
import shutil
import sysconfig
from pathlib import Path

from bench.peers.environments import Environment, with_variables

PACKAGE = "nvidia-pytriton"
PACKAGES = ("nvidia-pytriton==0.7.0", "numpy<2")
READY = "Started GRPCInferenceService"
CONFIG = """
name: "tiny"
backend: "python"
max_batch_size: 64
input { name: "input" data_type: TYPE_FP32 dims: 16 }
output { name: "output" data_type: TYPE_FP32 dims: 4 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
"""


def prepare(environment: Environment, weights: Path, folder: Path, port: int, spare_port: int) -> list[str | Path]:
    """Write what the server reads; returns the command that starts it with gRPC on `port`."""
    repository = folder / "repository"
    version = repository / "tiny" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    shutil.copy(weights, version / "weights.npz")
    shutil.copy(Path(__file__).with_name("triton_model.py"), version / "model.py")
    server = _find_server(environment)
    # The backend looks for its stub beside itself; the wheel carries one for each Python elsewhere.
    python = environment.site_packages.parent.name.removeprefix("python")
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    shutil.copy(stub, server / "backends" / "python")
    options = {
        "model-repository": repository,
        "backend-directory": server / "backends",
        "grpc-address": "127.0.0.1",
        "grpc-port": port,
        "allow-http": "false",
        "allow-metrics": "false",
    }
    start = [server / "bin" / "tritonserver", *(f"--{name}={value}" for name, value in options.items())]
    # The stub links libpython, and takes the packages of the first Python on PATH: it does not heed PYTHONPATH.
    path = f"{environment.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return with_variables({"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"), "PATH": path}, start)


def _find_server(environment: Environment) -> Path:
    return environment.site_packages / "pytriton" / "tritonserver"
