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


def open_sessions(path: Path, written: "WrittenConfig", gpus: Sequence[int]) -> ModelSessions:
    """Open a session for each instance, or one for all where the engine's workers run it.

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
        return ModelSessions((_open_session(path, CPU, written),), len(devices), 0)
    sessions = tuple(_open_or_fall_back(path, device, written) for device in devices)
    return ModelSessions(sessions, 1, buffer_sets)


def _open_or_fall_back(path: Path, device: str, written: "WrittenConfig") -> "Session":
    from kernels.session import DeviceError

    try:
        return _open_session(path, device, written)
    except DeviceError as error:
        if device == CPU:
            raise
        if not written.devices.falls_back:
            used = describe_memory(int(device.removeprefix("cuda:")))
            raise DeviceError(f"{error}; {used}" if used else str(error)) from None
        logger.warning("model falls back to the CPU", extra={"path": str(path), "reason": str(error)})
        return _open_session(path, CPU, written)


def _open_session(path: Path, device: str, written: "WrittenConfig") -> "Session":
    from kernels.session import Session

    return Session(
        str(path),
        device=device,
        intra_op_threads=written.intra_op_threads,
        inter_op_threads=written.inter_op_threads,
        cuda_options=written.devices.cuda_options,
        tensorrt_options=written.devices.tensorrt_options,
        session_config=written.devices.session_config,
    )
