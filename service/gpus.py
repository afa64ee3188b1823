"""The GPUs of this machine and what they are doing, as NVIDIA's management library tells; none without it."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """A GPU as CUDA counts them.

    Attributes
    ----------
    number
        That of `cuda:N`, among those that CUDA_VISIBLE_DEVICES leaves.
    """

    number: int
    uuid: str
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class GpuReading:
    """What one GPU is doing now; a figure that it does not give is None.

    Attributes
    ----------
    utilization
        Part of the last moment, 0 to 1, in which it ran anything at all.
    """

    gpu: Gpu
    utilization: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    power_watts: float | None
    temperature_celsius: float | None


def list_gpus() -> list[Gpu]:
    """The GPUs that this process may use, by number; empty without driver or management library."""
    with _open_library() as library:
        return [_describe(library, number, handle) for number, handle in enumerate(_visible_handles(library))]


def read_gpus() -> list[GpuReading]:
    """A reading of each of list_gpus."""
    with _open_library() as library:
        handles = enumerate(_visible_handles(library))
        return [_read(library, _describe(library, number, handle), handle) for number, handle in handles]


def describe_memory(number: int) -> str:
    """How much memory a GPU has and how much of it is used, in words; empty where nobody can tell."""
    for reading in read_gpus():
        if reading.gpu.number == number and reading.memory_used_bytes is not None:
            return f"{reading.memory_used_bytes} of {reading.gpu.memory_bytes} bytes were in use"
    return ""


def driver_version() -> str:
    """The version of NVIDIA's driver; empty without one."""
    with _open_library() as library:
        return _text(library.nvmlSystemGetDriverVersion()) if library is not None else ""


def order_like_management() -> None:
    """Have CUDA number the GPUs by their place on the bus, as the management library does, unless it is told otherwise.

    Must come before CUDA is loaded.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


@contextlib.contextmanager
def _open_library() -> Iterator[ModuleType | None]:
    """The management library, open; None without it or without a driver that it speaks to."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _visible_handles(library: ModuleType | None) -> list:
    """Handles in the order of CUDA's numbers."""
    if library is None:
        return []
    handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
    if VISIBLE not in os.environ:
        return handles
    uuids = [_text(library.nvmlDeviceGetUUID(handle)) for handle in handles]
    return [handles[index] for index in choose_visible(os.environ[VISIBLE], uuids)]


def choose_visible(listed: str, uuids: list[str]) -> list[int]:
    """Places of the GPUs that CUDA_VISIBLE_DEVICES lists, by number or beginning of a UUID, up to the first unknown."""
    chosen = []
    for entry in (part.strip() for part in listed.split(",")):
        if entry.isascii() and entry.isdigit():
            found = [int(entry)] if int(entry) < len(uuids) else []
        else:
            found = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if len(found) != 1:
            break
        chosen += found
    return chosen


def _describe(library: ModuleType, number: int, handle: object) -> Gpu:
    return Gpu(
        number=number,
        uuid=_text(library.nvmlDeviceGetUUID(handle)),
        name=_text(library.nvmlDeviceGetName(handle)),
        memory_bytes=library.nvmlDeviceGetMemoryInfo(handle).total,
    )


def _read(library: ModuleType, gpu: Gpu, handle: object) -> GpuReading:
    def ask(question, *arguments):
        try:
            return question(handle, *arguments)
        except library.NVMLError:
            return None

    rates = ask(library.nvmlDeviceGetUtilizationRates)
    memory = ask(library.nvmlDeviceGetMemoryInfo)
    power = ask(library.nvmlDeviceGetPowerUsage)
    return GpuReading(
        gpu=gpu,
        utilization=None if rates is None else rates.gpu / 100,
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        power_watts=None if power is None else power / 1000,
        temperature_celsius=ask(library.nvmlDeviceGetTemperature, library.NVML_TEMPERATURE_GPU),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
