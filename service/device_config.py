"""Where a model's instances run, and with which options of ONNX Runtime's providers: what its configuration says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.config_text import FILE_NAME, ModelConfigError
from service.pb.model_config_pb2 import ModelConfig, ModelInstanceGroup

# Parameters of a model that are read here.
BUFFER_SETS = "buffer_sets"
FALL_BACK = "fall_back_to_cpu"
MAX_BUFFER_SETS = 16
GPU_BUFFER_SETS = 2
# Options of the CUDA provider that Triton's ONNX Runtime backend takes as parameters of the model.
CUDA_PARAMETERS = (
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "do_copy_in_default_stream",
    "gpu_mem_limit",
    "use_tf32",
)
# It takes some of them as numbers, as in the C API's first struct.
NUMBERED = {
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
}
# Its names of options of the TensorRT provider; others are the provider's own.
TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}
# Options that are addresses in a process's memory, or that the server sets itself.
POINTERS = (
    "device_id",
    "default_memory_arena_cfg",
    "gpu_external_alloc",
    "gpu_external_empty_cache",
    "gpu_external_free",
    "has_user_compute_stream",
    "trt_onnx_bytestream",
    "trt_onnx_bytestream_size",
    "user_compute_stream",
)
# A recording is of one batch size and of tensors at fixed places on the device: replayed for others it answers wrongly.
GRAPHS = ("enable_cuda_graph", "trt_cuda_graph_enable")
OPTION_NAME = re.compile(r"[a-z0-9_.]{1,64}", re.IGNORECASE)


@dataclass(frozen=True)
class DeviceConfig:
    """What a configuration says about devices.

    Attributes
    ----------
    groups
        At least one.
    cuda_options, session_config
        By ONNX Runtime's names.
    tensorrt_options
        None where TensorRT is not asked for.
    buffer_sets
        None where the configuration leaves it to the server; 0 runs on the workers.
    falls_back
        Whether the CPU may do what a GPU cannot.
    """

    groups: tuple[ModelInstanceGroup, ...]
    cuda_options: Mapping[str, str] = field(default_factory=dict)
    tensorrt_options: Mapping[str, str] | None = None
    session_config: Mapping[str, str] = field(default_factory=dict)
    buffer_sets: int | None = None
    falls_back: bool = False


def read_devices(proto: ModelConfig) -> DeviceConfig:
    """Read what a configuration says about devices; ModelConfigError for what cannot be meant."""
    cuda_options: dict[str, str] = {}
    tensorrt_options = None
    for accelerator in proto.optimization.execution_accelerators.gpu_execution_accelerator:
        where = f"optimization.execution_accelerators.gpu_execution_accelerator {accelerator.name!r}"
        if accelerator.name == "tensorrt":
            tensorrt_options = _read_tensorrt(where, accelerator.parameters)
        elif accelerator.name == "cuda":
            cuda_options |= {name: _read_cuda(where, name, value) for name, value in accelerator.parameters.items()}
        else:
            raise ModelConfigError(f"{FILE_NAME}: {where}: expected 'tensorrt' or 'cuda'")
    parameters = {name: parameter.string_value for name, parameter in proto.parameters.items()}
    where = "parameters"
    cuda_options |= {
        name: _read_cuda(where, name, value) for name, value in parameters.items() if name in CUDA_PARAMETERS
    }
    return DeviceConfig(
        groups=tuple(proto.instance_group) or (ModelInstanceGroup(),),
        cuda_options=cuda_options,
        tensorrt_options=tensorrt_options,
        session_config={name: value for name, value in parameters.items() if name.startswith("session.")},
        buffer_sets=_read_buffer_sets(parameters.get(BUFFER_SETS)),
        falls_back=_read_choice(FALL_BACK, parameters.get(FALL_BACK, "false")),
    )


def is_device_parameter(name: str) -> bool:
    """Whether a parameter of a model is one that read_devices reads."""
    return name in (BUFFER_SETS, FALL_BACK, *CUDA_PARAMETERS) or name.startswith("session.")


def is_on_gpu(group: ModelInstanceGroup, gpus: Sequence[int]) -> bool:
    """Whether a group's instances run on GPUs, when these are usable."""
    if group.kind == ModelInstanceGroup.KIND_GPU or group.gpus:
        return bool(group.gpus or gpus)
    return group.kind == ModelInstanceGroup.KIND_AUTO and bool(gpus)


def place_instances(config: DeviceConfig, gpus: Sequence[int]) -> list[str]:
    """The device of each instance; a group's count is for each of its GPUs.

    Parameters
    ----------
    gpus
        Numbers of the GPUs that there are and that the installed ONNX Runtime can use: what a group means that names
        none, and where one goes that leaves the choice.

    Raises
    ------
    ModelConfigError
        A group wants GPUs and there are none.
    """
    devices = []
    for index, group in enumerate(config.groups):
        where = f"{FILE_NAME}: instance_group[{index}]"
        if group.gpus and group.kind == ModelInstanceGroup.KIND_CPU:
            raise ModelConfigError(f"{where}.gpus: expected none with KIND_CPU, given {list(group.gpus)}")
        numbers = list(group.gpus or gpus) if is_on_gpu(group, gpus) else []
        if group.kind == ModelInstanceGroup.KIND_GPU and not numbers and not config.falls_back:
            raise ModelConfigError(
                f"{where}.kind: KIND_GPU, and there is no GPU that ONNX Runtime can use: `sluice doctor` says what is "
                f"missing; the parameter {FALL_BACK} lets the CPU do it"
            )
        for device in [f"cuda:{number}" for number in numbers] or ["cpu"]:
            devices += [device] * (group.count or 1)
    return devices


def _read_tensorrt(where: str, given: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in given.items():
        if name == "precision_mode":
            if value not in PRECISIONS:
                expected = ", ".join(PRECISIONS)
                raise ModelConfigError(f"{FILE_NAME}: {where}: {name}: expected one of {expected}, given {value!r}")
            options |= PRECISIONS[value]
        else:
            own_name = TENSORRT_NAMES.get(name, name)
            options[own_name] = _check_option(where, own_name, value)
    return options


def _read_cuda(where: str, name: str, value: str) -> str:
    choices = NUMBERED.get(name, ())
    if value.isascii() and value.isdigit() and int(value) < len(choices):
        return choices[int(value)]
    return _check_option(where, name, value)


def _check_option(where: str, name: str, value: str) -> str:
    if name in GRAPHS:
        raise ModelConfigError(f"{FILE_NAME}: {where}: {name}: CUDA graphs are not served; expected it left out")
    if not OPTION_NAME.fullmatch(name) or name in POINTERS:
        raise ModelConfigError(f"{FILE_NAME}: {where}: expected the name of an option, given {name!r}")
    return value


def _read_buffer_sets(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given) <= MAX_BUFFER_SETS):
        where = f"{FILE_NAME}: parameters[{BUFFER_SETS!r}]"
        raise ModelConfigError(f"{where}: expected a number from 0 to {MAX_BUFFER_SETS}, given {given!r}")
    return int(given)


def _read_choice(name: str, given: str) -> bool:
    if given not in ("true", "false"):
        raise ModelConfigError(f"{FILE_NAME}: parameters[{name!r}]: expected 'true' or 'false', given {given!r}")
    return given == "true"
