"""service.gpus: what NVIDIA's management library tells, and nothing where it is not there."""

import importlib.util

import pytest

from service.gpus import choose_visible, describe_memory, driver_version, list_gpus, read_gpus

HAS_DRIVER = bool(driver_version())
UUIDS = ["GPU-11aa", "GPU-12bb", "GPU-2ccc"]


@pytest.mark.skipif(HAS_DRIVER, reason="this machine has a GPU")
def test_machine_without_gpu_has_no_readings():
    """Whether or not the management library is installed."""
    assert (list_gpus(), read_gpus(), describe_memory(0)) == ([], [], "")


@pytest.mark.skipif(not HAS_DRIVER, reason="no GPU, or nvidia-ml-py is not installed")
def test_readings_of_gpus_are_plausible():
    """Each GPU has its own, within what it is."""
    for reading in read_gpus():
        assert 0 <= reading.utilization <= 1
        assert 0 < reading.memory_used_bytes <= reading.memory_total_bytes == reading.gpu.memory_bytes
        assert reading.temperature_celsius > 0
    assert [reading.gpu for reading in read_gpus()] == list_gpus()


@pytest.mark.parametrize(
    ("listed", "places"),
    [
        ("", []),
        ("0,1,2", [0, 1, 2]),
        ("2, 0", [2, 0]),
        ("GPU-2,GPU-11", [2, 0]),
        ("0,7,1", [0]),
        ("-1", []),
        ("GPU-1", []),
        ("1,GPU-9,0", [1]),
    ],
)
def test_visible_gpus_are_numbered_as_cuda_does(listed, places):
    """By number or by the beginning of a UUID that is nobody else's; what is unknown ends the list."""
    assert choose_visible(listed, UUIDS) == places


def test_management_library_is_looked_for_by_its_name():
    """It is no dependency of a server on the CPU."""
    assert importlib.util.find_spec("pynvml") is not None or list_gpus() == []
