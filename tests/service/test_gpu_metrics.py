"""service.gpu_metrics: Triton's metrics of each GPU that there is, and none without."""

from dataclasses import replace

import pytest

from service.exposition import write_text
from service.gpu_metrics import GpuMetrics
from service.gpus import Gpu, GpuReading, driver_version

FIRST = GpuReading(
    gpu=Gpu(number=0, uuid="GPU-1a", name="first", memory_bytes=85899345920),
    utilization=0.75,
    memory_used_bytes=1073741824,
    memory_total_bytes=85899345920,
    power_watts=312.5,
    temperature_celsius=61,
    power_limit_watts=700.0,
    energy_joules=5000.0,
)
# As a GPU of another kind, which tells little of itself.
SECOND = GpuReading(
    gpu=Gpu(number=1, uuid="GPU-2b", name="second", memory_bytes=1024),
    utilization=None,
    memory_used_bytes=512,
    memory_total_bytes=1024,
    power_watts=None,
    temperature_celsius=None,
)


def samples(metrics):
    """{name and labels: value} of a scrape."""
    lines = write_text(metrics.describe()).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_metrics_are_tritons_by_uuid():
    """Names, units and label as its dashboards have them."""
    assert samples(GpuMetrics(lambda: [FIRST])) == {
        'nv_gpu_utilization{gpu_uuid="GPU-1a"}': 0.75,
        'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1a"}': 85899345920,
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1a"}': 1073741824,
        'nv_gpu_power_usage{gpu_uuid="GPU-1a"}': 312.5,
        'nv_gpu_power_limit{gpu_uuid="GPU-1a"}': 700,
        'nv_energy_consumption{gpu_uuid="GPU-1a"}': 0,
        'sluice_gpu_temperature_celsius{gpu_uuid="GPU-1a"}': 61,
    }


def test_figure_that_a_gpu_does_not_give_is_left_out():
    """Of that GPU alone."""
    found = samples(GpuMetrics(lambda: [FIRST, SECOND]))
    assert {name for name in found if "GPU-2b" in name} == {
        'nv_gpu_memory_total_bytes{gpu_uuid="GPU-2b"}',
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-2b"}',
    }
    assert len(found) == 9


def test_energy_is_counted_from_the_start():
    """The driver counts from when it was loaded; one that gives no figure at first is counted from its first."""
    readings = [FIRST, replace(SECOND, energy_joules=None)]
    metrics = GpuMetrics(lambda: readings)
    readings[:] = [replace(FIRST, energy_joules=5250.5), replace(SECOND, energy_joules=100.0)]
    found = samples(metrics)
    assert found['nv_energy_consumption{gpu_uuid="GPU-1a"}'] == 250.5
    assert found['nv_energy_consumption{gpu_uuid="GPU-2b"}'] == 0
    readings[1] = replace(SECOND, energy_joules=103.0)
    assert samples(metrics)['nv_energy_consumption{gpu_uuid="GPU-2b"}'] == 3


@pytest.mark.skipif(bool(driver_version()), reason="this machine has a GPU")
def test_machine_without_gpu_has_none():
    """Not even names without samples."""
    assert write_text(GpuMetrics().describe()) == b"\n"


@pytest.mark.skipif(not driver_version(), reason="no GPU, or nvidia-ml-py is not installed")
def test_gpu_of_this_machine_has_them():
    """What every GPU gives."""
    found = samples(GpuMetrics())
    assert any(name.startswith("nv_gpu_memory_used_bytes") for name in found)
