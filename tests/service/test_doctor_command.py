"""`sluice doctor`: what is there, and for what is not the command that brings it."""

import pytest
from typer.testing import CliRunner

from kernels.providers import available_providers
from kernels.runtime import find_library, runtime_version
from service.cli import app
from service.gpus import driver_version

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


def test_doctor_leaves_the_process_as_it_was(monkeypatch):
    """The order of GPUs that the environment gives is kept."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    run_doctor()
    import os

    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
