"""What an operator wrote about a model in `config.pbtxt`: checked, and refused where it says what is not read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from kernels.queue_options import QueueOptions
from service.config_text import FILE_NAME, MAX_FILE_BYTES, ModelConfigError, list_set_fields, parse_json, parse_text
from service.device_config import DeviceConfig, is_device_parameter, read_devices
from service.ensemble_fields import ENSEMBLE_PLATFORM, check_ensemble
from service.pb.model_config_pb2 import ModelConfig, ModelInstanceGroup
from service.queue_config import BATCHING, QUEUE_FIELDS, QUEUE_PARAMETERS, read_queue_options
from service.sequence_config import check_sequences
from service.uneven_config import READ_UNEVEN_FIELDS, UNEVEN_PARAMETERS, Padding, check_uneven, read_padding
from service.version_policy import LABELS_PARAMETER, check_policy, read_labels

MAX_THREADS = 1024
MAX_INSTANCES = 1024
MAX_QUEUE_DELAY_US = 10_000_000

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
SERVED_KINDS = (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_AUTO)
THREAD_PARAMETERS = ("intra_op_thread_count", "inter_op_thread_count")
# Of Triton's ONNX Runtime backend, as those above: 0 has ONNX Runtime keep no memory from one run to the next.
ARENA_PARAMETER = "enable_mem_arena"
MODEL_FILE = "model.onnx"

# Every field that is read, by its full name; a message that is not listed with a field of its own is read whole.
READ_FIELDS = frozenset(
    {
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "input.name",
        "input.data_type",
        "input.dims",
        "input.optional",
        "input.reshape",
        "input.reshape.shape",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.label_filename",
        "output.reshape",
        "output.reshape.shape",
        "dynamic_batching",
        "dynamic_batching.max_queue_delay_microseconds",
        *(f"{BATCHING}.{field}" for field in QUEUE_FIELDS),
        *READ_UNEVEN_FIELDS,
        "ensemble_scheduling",
        "ensemble_scheduling.step",
        "ensemble_scheduling.step.model_name",
        "ensemble_scheduling.step.model_version",
        "ensemble_scheduling.step.input_map",
        "ensemble_scheduling.step.output_map",
        "instance_group",
        "instance_group.count",
        "instance_group.kind",
        "instance_group.gpus",
        "input",
        "output",
        "parameters",
        "version_policy",
        "version_policy.latest",
        "version_policy.latest.num_versions",
        "version_policy.all",
        "version_policy.specific",
        "version_policy.specific.versions",
        "default_model_filename",
        "response_cache",
        "response_cache.enable",
        "model_warmup",
        "model_warmup.name",
        "model_warmup.batch_size",
        "model_warmup.count",
        "model_warmup.inputs",
        "optimization",
        "optimization.cuda",
        "optimization.cuda.graphs",
        "optimization.cuda.graph_spec",
        "optimization.cuda.graph_spec.batch_size",
        "optimization.execution_accelerators",
        "optimization.execution_accelerators.gpu_execution_accelerator",
        "optimization.execution_accelerators.gpu_execution_accelerator.name",
        "optimization.execution_accelerators.gpu_execution_accelerator.parameters",
        "sequence_batching",
        "sequence_batching.max_sequence_idle_microseconds",
        "sequence_batching.control_input",
        "sequence_batching.control_input.name",
        "sequence_batching.control_input.control",
        "sequence_batching.control_input.control.kind",
        "sequence_batching.control_input.control.int32_false_true",
        "sequence_batching.control_input.control.fp32_false_true",
        "sequence_batching.control_input.control.bool_false_true",
        "sequence_batching.control_input.control.data_type",
        "sequence_batching.state",
        "sequence_batching.state.input_name",
        "sequence_batching.state.output_name",
        "sequence_batching.state.data_type",
        "sequence_batching.state.dims",
        "sequence_batching.state.initial_state",
        "sequence_batching.state.initial_state.name",
        "sequence_batching.state.initial_state.data_type",
        "sequence_batching.state.initial_state.dims",
        "sequence_batching.state.initial_state.zero_data",
        "sequence_batching.state.initial_state.data_file",
        "sequence_batching.direct",
        "sequence_batching.direct.max_queue_delay_microseconds",
        "sequence_batching.direct.minimum_slot_utilization",
        "sequence_batching.oldest",
        "sequence_batching.oldest.max_candidate_sequences",
        "sequence_batching.oldest.preferred_batch_size",
        "sequence_batching.oldest.max_queue_delay_microseconds",
        "sequence_batching.oldest.preserve_ordering",
    }
)

# Fields that bear on no answer and on nobody's request: what they ask for does not happen, and the log says so.
WARNED_FIELDS = frozenset(
    {
        "input.format",
        "instance_group.name",
        "instance_group.host_policy",
        "metric_tags",
        "optimization.cuda.busy_wait_events",
        "optimization.cuda.output_copy_stream",
        "optimization.priority",
        "optimization.input_pinned_memory",
        "optimization.output_pinned_memory",
        "optimization.gather_kernel_buffer_threshold",
        "optimization.eager_batching",
        "ensemble_scheduling.max_inflight_requests",
        "sequence_batching.state.use_same_buffer_for_input_output",
        "sequence_batching.state.use_growable_memory",
    }
)


@dataclass(frozen=True)
class WrittenConfig:
    """A configuration as it was written, checked as far as that goes without the model.

    Attributes
    ----------
    proto
        What the file says; empty without a file.
    max_batch_size
        None where the file does not say, which is not the same as 0.
    queue_delay_us, instance_count, intra_op_threads, inter_op_threads
        What the file says, or the default; 0 threads shares the process's pool.
    queueing
        Who waits where and for how long, and when a batch that is not full runs.
    devices
        Where instances run, and the options of what runs them there.
    padding
        What is padded so that requests of different lengths go into one batch; None for nothing.
    uses_arena
        Whether ONNX Runtime keeps the memory of a run for the next.
    model_file
        Name of the ONNX file in a version's folder.
    labels
        Names of versions and what they stand for.
    without_effect
        Names of the fields that are set and that change nothing.
    """

    proto: ModelConfig
    max_batch_size: int | None
    queue_delay_us: int
    instance_count: int
    intra_op_threads: int
    inter_op_threads: int
    queueing: QueueOptions
    devices: DeviceConfig
    padding: Padding | None = None
    uses_arena: bool = True
    model_file: str = MODEL_FILE
    labels: Mapping[str, int] = field(default_factory=dict)
    without_effect: tuple[str, ...] = ()

    @property
    def is_ensemble(self) -> bool:
        """Whether it is the configuration of a graph of other models."""
        return self.proto.HasField("ensemble_scheduling")


def read_config(path: Path | None, model: str) -> WrittenConfig:
    """Read the configuration of the model whose folder has that name; without a file, the empty one.

    Raises
    ------
    ModelConfigError
        The file cannot be read, is not text protobuf (the text has line and column), sets a field that is not read,
        or one to a value out of range.
    """
    return _check(parse_text("" if path is None else _read_text(path)), model)


def read_override(text: str, model: str) -> WrittenConfig:
    """As read_config, of JSON that takes the place of the file."""
    return _check(parse_json(text), model)


def _check(parsed: Message, model: str) -> WrittenConfig:
    proto = ModelConfig.FromString(parsed.SerializeToString())
    without_effect = _list_without_effect(parsed)
    _check_identity(proto, model)
    check_policy(proto.version_policy)
    check_sequences(proto)
    parameters = _read_parameters(proto)
    devices = read_devices(proto)
    padding = read_padding(parameters)
    check_uneven(proto, padding, records_runs=devices.graph_batches is not None)
    delay_us = proto.dynamic_batching.max_queue_delay_microseconds
    _check_range("dynamic_batching.max_queue_delay_microseconds", delay_us, 0, MAX_QUEUE_DELAY_US)
    _check_range("max_batch_size", proto.max_batch_size, 0, 2**31 - 1)
    return WrittenConfig(
        proto=proto,
        max_batch_size=proto.max_batch_size if parsed.HasField("max_batch_size") else None,
        queue_delay_us=delay_us,
        instance_count=_count_instances(proto),
        intra_op_threads=_read_threads(parameters, "intra_op_thread_count"),
        inter_op_threads=_read_threads(parameters, "inter_op_thread_count"),
        queueing=read_queue_options(proto.dynamic_batching, parameters),
        devices=devices,
        padding=padding,
        uses_arena=_read_switch(parameters, ARENA_PARAMETER),
        model_file=proto.default_model_filename or MODEL_FILE,
        labels=read_labels(parameters[LABELS_PARAMETER]) if LABELS_PARAMETER in parameters else {},
        without_effect=without_effect,
    )


def _list_without_effect(parsed: Message) -> tuple[str, ...]:
    """Names of the fields that change nothing; ModelConfigError for one that would and is not read."""
    names = list(dict.fromkeys(list_set_fields(parsed)))
    without_effect = tuple(name for name in names if name in WARNED_FIELDS)
    for name in names:
        is_inside = any(name.startswith(f"{outer}.") for outer in without_effect)
        if not (is_inside or name in READ_FIELDS or name in WARNED_FIELDS):
            raise ModelConfigError(f"{FILE_NAME}: {name}: this server does not read the field; expected it left out")
    return without_effect


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ModelConfigError(f"{FILE_NAME}: expected at most {MAX_FILE_BYTES} bytes, given more")
        return content.decode()
    except OSError as error:
        raise ModelConfigError(f"{FILE_NAME}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ModelConfigError(f"{FILE_NAME}: expected UTF-8, given another byte at position {error.start}") from None


def _check_identity(proto: ModelConfig, model: str) -> None:
    _check_choice("name", proto.name, model)
    if proto.HasField("ensemble_scheduling"):
        check_ensemble(proto)
        return
    if proto.platform == ENSEMBLE_PLATFORM:
        raise ModelConfigError(f"{FILE_NAME}: ensemble_scheduling: expected the steps of the ensemble, given none")
    _check_choice("platform", proto.platform, PLATFORM)
    _check_choice("backend", proto.backend, BACKEND)


def _check_choice(field: str, given: str, expected: str) -> None:
    if given not in ("", expected):
        raise ModelConfigError(f"{FILE_NAME}: {field}: expected {expected!r} or nothing, given {given!r}")


def _check_range(field: str, given: int, low: int, high: int) -> None:
    if not low <= given <= high:
        raise ModelConfigError(f"{FILE_NAME}: {field}: expected a number from {low} to {high}, given {given}")


def _read_parameters(proto: ModelConfig) -> dict[str, str]:
    """The parameters that are not about devices, all of which are known."""
    known = (*THREAD_PARAMETERS, ARENA_PARAMETER, LABELS_PARAMETER, *QUEUE_PARAMETERS, *UNEVEN_PARAMETERS)
    others = [name for name in proto.parameters if not is_device_parameter(name)]
    for name in others:
        if name not in known:
            raise ModelConfigError(f"{FILE_NAME}: parameters[{name!r}]: expected one of {', '.join(known)}")
    return {name: proto.parameters[name].string_value for name in others}


def _read_threads(parameters: Mapping[str, str], name: str) -> int:
    field_name, given = f"parameters[{name!r}]", parameters.get(name, "0")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise ModelConfigError(f"{FILE_NAME}: {field_name}: expected a whole number, given {given!r}")
    _check_range(field_name, int(given), 0, MAX_THREADS)
    return int(given)


def _read_switch(parameters: Mapping[str, str], name: str) -> bool:
    """On unless it is 0."""
    given = parameters.get(name, "1")
    if given not in ("0", "1"):
        raise ModelConfigError(f"{FILE_NAME}: parameters[{name!r}]: expected 0 or 1, given {given!r}")
    return given == "1"


def _count_instances(proto: ModelConfig) -> int:
    """Instances over all groups; a group that gives no count has one."""
    total = 0
    for index, group in enumerate(proto.instance_group):
        if group.kind not in SERVED_KINDS:
            names = " or ".join(ModelInstanceGroup.Kind.Name(kind) for kind in SERVED_KINDS)
            known = group.kind in ModelInstanceGroup.Kind.values()
            kind = ModelInstanceGroup.Kind.Name(group.kind) if known else group.kind
            raise ModelConfigError(f"{FILE_NAME}: instance_group[{index}].kind: expected {names}, given {kind}")
        _check_range(f"instance_group[{index}].count", group.count, 0, MAX_INSTANCES)
        total += group.count or 1
    _check_range("instance_group", max(total, 1), 1, MAX_INSTANCES)
    return max(total, 1)
