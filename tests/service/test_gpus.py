"""service.gpus: what NVIDIA's management library tells, and nothing where it is not there."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from service.gpus import (
    Gpu,
    GpuReading,
    choose_visible,
    cuda_version,
    describe_memory,
    driver_version,
    keep_library_open,
    list_gpus,
    read_gpus,
)

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


class Management:
    """As much of NVIDIA's library as a reading takes, of a GPU that does not tell how busy it is."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """What a call raises that the GPU has no answer to."""

    def __init__(self):
        self.opened = 0

    def nvmlInit(self):  # noqa: N802, D102
        self.opened += 1

    def nvmlShutdown(self):  # noqa: N802, D102
        self.opened -= 1

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802, D102
        raise self.NVMLError

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: b"GPU-1",
            "nvmlDeviceGetName": lambda handle: "a GPU",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=1000, used=300),
            "nvmlDeviceGetPowerUsage": lambda handle: 250_500,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 1_234_500,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
            "nvmlSystemGetDriverVersion": lambda: "580.65",
            "nvmlSystemGetCudaDriverVersion": lambda: 12080,
        }
        return answers[name]


@pytest.fixture
def management(monkeypatch):
    """In the place of NVIDIA's library, which answers in thousandths."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    library = Management()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_readings_are_in_plain_units(management):
    """Watts and joules; what the GPU does not tell is None. The library is closed again."""
    gpu = Gpu(number=0, uuid="GPU-1", name="a GPU", memory_bytes=1000)
    assert read_gpus() == [GpuReading(gpu, None, 300, 1000, 250.5, 61, 700.0, 1234.5)]
    assert (driver_version(), cuda_version()) == ("580.65", "12.8")
    assert describe_memory(0) == "300 of 1000 bytes were in use"
    assert management.opened == 0


def test_library_that_is_kept_open_is_not_closed_by_readings(management):
    """Opening it again is a count, and no look at every GPU."""
    keep_library_open()
    read_gpus()
    assert management.opened == 1


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
