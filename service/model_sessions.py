"""Opens the sessions of a model version where its configuration wants them, and says how the engine is to run them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.device_config import GPU_BUFFER_SETS, place_instances
from service.gpus import describe_memory, list_gpus, order_like_management

if TYPE_CHECKING:
    from kernels.session import Session
    from service.low_priority import LowPriorityThreads
    from service.model_config import WrittenConfig

CUDA_PROVIDER = "CUDAExecutionProvider"
CPU = "cpu"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSessions:
    """The open sessions of a model version.

    Attributes
    ----------
    buffer_sets
        0 where all instances share one session, which the engine's workers run.
    """

    sessions: tuple["Session", ...]
    instance_count: int
    buffer_sets: int

    @property
    def gpus(self) -> list[int]:
        """Numbers of the GPUs that they are on."""
        devices = {session.device for session in self.sessions} - {CPU}
        return sorted(int(device.removeprefix("cuda:")) for device in devices)


def list_usable_gpus() -> list[int]:
    """Numbers of the GPUs of this machine, if the installed ONNX Runtime has a provider for them.

    Must come before the first session on one: from then on CUDA's numbers are those of the management library.
    """
    from kernels.providers import available_providers

    order_like_management()
    gpus = [gpu.number for gpu in list_gpus()]
    return gpus if gpus and CUDA_PROVIDER in available_providers() else []


def open_sessions(
    path: Path, written: "WrittenConfig", gpus: Sequence[int], threads: "LowPriorityThreads | None" = None
) -> ModelSessions:
    """Open a session for each instance, or one for all where the engine's workers run it.

    Parameters
    ----------
    threads
        Open what they may; all is done in this thread without them.

    Raises
    ------
    ModelConfigError
        A GPU is wanted and none is there.
    SessionError
        The model cannot be loaded where it is wanted; the CPU is tried only if the configuration says so.
    """
    config = written.devices
    devices = place_instances(config, gpus)
    buffer_sets = config.buffer_sets
    if buffer_sets is None:
        buffer_sets = 0 if set(devices) == {CPU} else GPU_BUFFER_SETS
    if buffer_sets == 0 and set(devices) != {CPU}:
        buffer_sets = 1
    if buffer_sets == 0:
        return ModelSessions((_open_session(path, CPU, written, threads),), len(devices), 0)
    sessions = tuple(_open_or_fall_back(path, device, written, threads) for device in devices)
    return ModelSessions(sessions, 1, buffer_sets)


def _open_or_fall_back(
    path: Path, device: str, written: "WrittenConfig", threads: "LowPriorityThreads | None"
) -> "Session":
    from kernels.session import DeviceError

    try:
        return _open_session(path, device, written, threads)
    except DeviceError as error:
        if device == CPU:
            raise
        if not written.devices.falls_back:
            used = describe_memory(int(device.removeprefix("cuda:")))
            raise DeviceError(f"{error}; {used}" if used else str(error)) from None
        logger.warning("model falls back to the CPU", extra={"path": str(path), "reason": str(error)})
        return _open_session(path, CPU, written, threads)


def _open_session(path: Path, device: str, written: "WrittenConfig", threads: "LowPriorityThreads | None") -> "Session":
    """Open a model beside serving: at low priority, unless it brings threads of its own, which would keep that."""
    from kernels.runtime import start_runtime
    from kernels.session import Session

    options = {
        "device": device,
        "arena": written.uses_arena,
        "intra_op_threads": written.intra_op_threads,
        "inter_op_threads": written.inter_op_threads,
        "cuda_options": written.devices.cuda_options,
        "tensorrt_options": written.devices.tensorrt_options,
        "session_config": written.devices.session_config,
        "optional_inputs": [given.name for given in written.proto.input if given.optional],
    }
    if threads is None or device != CPU or written.intra_op_threads or written.inter_op_threads:
        return Session(str(path), **options)
    start_runtime()
    return threads.run(Session, str(path), **options)
