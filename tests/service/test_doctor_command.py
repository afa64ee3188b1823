"""`sluice doctor`: what is there, and for what is not the command that brings it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from kernels.cuda_libraries import find_runtimes
from kernels.providers import available_providers
from kernels.runtime import find_library, runtime_version
from service.cli import app
from service.gpus import driver_version
from tests.host_cuda import build_host_cuda
from tests.served import CLI

IS_INSTALLED = any(path.startswith("/") for path in find_runtimes())
HAS_CUDA = "CUDAExecutionProvider" in available_providers()


def run_doctor(**environment):
    """What it says."""
    done = CliRunner().invoke(app, ["doctor"], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


def test_doctor_names_the_library_that_runs_models():
    """Its version and its file."""
    assert f"{runtime_version()}  {find_library()}" in run_doctor()


@pytest.mark.skipif(HAS_CUDA, reason="the installed ONNX Runtime has the CUDA provider")
def test_doctor_without_provider_tells_how_to_get_it():
    """The package of the CPU must go first: both install the same files."""
    said = run_doctor().splitlines()
    place = next(index for index, line in enumerate(said) if line.startswith("CUDA"))
    assert "not in the installed ONNX Runtime" in said[place]
    assert "pip uninstall -y onnxruntime && pip install 'sluice-serving[gpu]'" in said[place + 1]


@pytest.mark.skipif(bool(driver_version()), reason="this machine has a GPU")
def test_doctor_without_driver_tells_how_to_get_it():
    """Or how to get told about it."""
    said = run_doctor()
    assert "pip install nvidia-ml-py" in said or "install NVIDIA's driver" in said


@pytest.mark.skipif(IS_INSTALLED, reason="the packages of CUDA's runtime are installed")
def test_doctor_tells_whether_memory_of_gpus_can_be_shared():
    """Why not, and what brings it; or by which library."""
    said = run_doctor().splitlines()
    place = next(index for index, line in enumerate(said) if line.startswith("shared memory"))
    assert "of GPUs cannot be registered: this server has no CUDA: libcudart" in said[place]
    assert "pip install 'sluice-serving[gpu]'" in said[place + 1]
    environment = os.environ | {"LD_LIBRARY_PATH": str(build_host_cuda())}
    command = [sys.executable, "-c", CLI, "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "shared memory  of 2 GPUs can be registered  libcudart.so.13" in done.stdout.splitlines()


def test_doctor_names_packages_with_their_versions(monkeypatch):
    """NVIDIA's, and no other."""
    installed = [SimpleNamespace(name="nvidia-cudnn-cu13", version="9.1"), SimpleNamespace(name="numpy", version="2")]
    monkeypatch.setattr("importlib.metadata.distributions", lambda: installed)
    assert "packages       nvidia-cudnn-cu13 9.1" in run_doctor().splitlines()


def test_doctor_leaves_the_process_as_it_was(monkeypatch):
    """The order of GPUs that the environment gives is kept."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    run_doctor()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
