"""What the GPUs are doing, as metrics: Triton's, and the temperature, which it does not have."""

from collections.abc import Callable, Sequence

from service.exposition import Family, format_labels
from service.gpus import GpuReading, read_gpus

# Name, kind and meaning, and the figure of a reading.
METRICS = (
    ("nv_gpu_utilization", "gauge", "GPU utilization rate [0.0 - 1.0]", "utilization"),
    ("nv_gpu_memory_total_bytes", "gauge", "GPU total memory, in bytes", "memory_total_bytes"),
    ("nv_gpu_memory_used_bytes", "gauge", "GPU used memory, in bytes", "memory_used_bytes"),
    ("nv_gpu_power_usage", "gauge", "GPU power usage in watts", "power_watts"),
    ("nv_gpu_power_limit", "gauge", "GPU power management limit in watts", "power_limit_watts"),
    ("nv_energy_consumption", "counter", "GPU energy consumption in joules since the server started", "energy_joules"),
    ("sluice_gpu_temperature_celsius", "gauge", "GPU temperature", "temperature_celsius"),
)
ENERGY = "energy_joules"


class GpuMetrics:
    """Takes a reading of each GPU at each scrape; energy is counted from the first reading on, which is made here.

    Parameters
    ----------
    read
        Gives the readings; none where there is no GPU.
    """

    def __init__(self, read: Callable[[], Sequence[GpuReading]] = read_gpus):
        self._read = read
        self._energy_before: dict[str, float] = {}
        self.describe()

    def describe(self) -> list[Family]:
        """The families, with a sample of each GPU that gives the figure."""
        readings = self._read()
        return [self._describe_figure(readings, *metric) for metric in METRICS]

    def _describe_figure(
        self, readings: Sequence[GpuReading], name: str, kind: str, meaning: str, figure: str
    ) -> Family:
        family = Family(name, kind, meaning)
        for reading in readings:
            value = getattr(reading, figure)
            if value is not None and figure == ENERGY:
                value -= self._energy_before.setdefault(reading.gpu.uuid, value)
            if value is not None:
                family.add(value, format_labels({"gpu_uuid": reading.gpu.uuid}))
        return family
