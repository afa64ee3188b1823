"""What an operator wrote about a model in `config.pbtxt`: parsed, and refused where it says what is not read."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from service.config_errors import FILE_NAME, ModelConfigError
from service.device_config import DeviceConfig, is_device_parameter, read_devices
from service.pb.model_config_pb2 import DESCRIPTOR, ModelConfig, ModelInstanceGroup

MAX_FILE_BYTES = 1024 * 1024
MAX_THREADS = 1024
MAX_INSTANCES = 1024
MAX_QUEUE_DELAY_US = 10_000_000

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
SERVED_KINDS = (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_AUTO)
THREAD_PARAMETERS = ("intra_op_thread_count", "inter_op_thread_count")

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
        "output.name",
        "output.data_type",
        "output.dims",
        "dynamic_batching",
        "dynamic_batching.max_queue_delay_microseconds",
        "instance_group",
        "instance_group.count",
        "instance_group.kind",
        "instance_group.gpus",
        "input",
        "output",
        "parameters",
        "optimization",
        "optimization.execution_accelerators",
        "optimization.execution_accelerators.gpu_execution_accelerator",
        "optimization.execution_accelerators.gpu_execution_accelerator.name",
        "optimization.execution_accelerators.gpu_execution_accelerator.parameters",
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
    devices
        Where instances run, and the options of what runs them there.
    """

    proto: ModelConfig
    max_batch_size: int | None
    queue_delay_us: int
    instance_count: int
    intra_op_threads: int
    inter_op_threads: int
    devices: DeviceConfig


def read_config(path: Path | None, model: str) -> WrittenConfig:
    """Read the configuration of the model whose folder has that name; without a file, the empty one.

    Raises
    ------
    ModelConfigError
        The file cannot be read, is not text protobuf (the text has line and column), sets a field that is not read,
        or one to a value out of range.
    """
    parsed = _presence_class()() if path is None else _parse(_read_text(path))
    proto = ModelConfig.FromString(parsed.SerializeToString())
    for name in _list_set_fields(parsed):
        if name not in READ_FIELDS:
            raise ModelConfigError(f"{FILE_NAME}: {name}: this server does not read the field; expected it left out")
    _check_identity(proto, model)
    threads = _read_threads(proto)
    devices = read_devices(proto)
    delay_us = proto.dynamic_batching.max_queue_delay_microseconds
    _check_range("dynamic_batching.max_queue_delay_microseconds", delay_us, 0, MAX_QUEUE_DELAY_US)
    _check_range("max_batch_size", proto.max_batch_size, 0, 2**31 - 1)
    return WrittenConfig(
        proto=proto,
        max_batch_size=proto.max_batch_size if parsed.HasField("max_batch_size") else None,
        queue_delay_us=delay_us,
        instance_count=_count_instances(proto),
        intra_op_threads=threads["intra_op_thread_count"],
        inter_op_threads=threads["inter_op_thread_count"],
        devices=devices,
    )


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


def _parse(text: str) -> Message:
    try:
        return text_format.Parse(text, _presence_class()())
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        detail = str(error).removeprefix(f"{line}:{column} : ")
        raise ModelConfigError(f"{FILE_NAME}:{line}:{column}: {detail}") from None


@functools.cache
def _presence_class() -> type[Message]:
    """ModelConfig again, with a max_batch_size that knows whether it was written: 0 is a choice, silence is none."""
    file = descriptor_pb2.FileDescriptorProto()
    DESCRIPTOR.CopyToProto(file)
    config = next(message for message in file.message_type if message.name == "ModelConfig")
    field = next(field for field in config.field if field.name == "max_batch_size")
    field.proto3_optional = True
    field.oneof_index = len(config.oneof_decl)
    config.oneof_decl.add(name="_max_batch_size")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(DESCRIPTOR.package + ".ModelConfig"))


def _list_set_fields(message: Message, prefix: str = "") -> Iterator[str]:
    """Full names of the fields that are set, each message before its own fields; maps count as one field."""
    for field, value in message.ListFields():
        name = prefix + field.name
        yield name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else [value]:
            yield from _list_set_fields(item, name + ".")


def _check_identity(proto: ModelConfig, model: str) -> None:
    _check_choice("name", proto.name, model)
    _check_choice("platform", proto.platform, PLATFORM)
    _check_choice("backend", proto.backend, BACKEND)


def _check_choice(field: str, given: str, expected: str) -> None:
    if given not in ("", expected):
        raise ModelConfigError(f"{FILE_NAME}: {field}: expected {expected!r} or nothing, given {given!r}")


def _check_range(field: str, given: int, low: int, high: int) -> None:
    if not low <= given <= high:
        raise ModelConfigError(f"{FILE_NAME}: {field}: expected a number from {low} to {high}, given {given}")


def _read_threads(proto: ModelConfig) -> dict[str, int]:
    threads = dict.fromkeys(THREAD_PARAMETERS, 0)
    for name, parameter in proto.parameters.items():
        field, given = f"parameters[{name!r}]", parameter.string_value
        if is_device_parameter(name):
            continue
        if name not in threads:
            raise ModelConfigError(f"{FILE_NAME}: {field}: expected one of {', '.join(THREAD_PARAMETERS)}")
        if not (given.isascii() and given.isdigit() and len(given) < 10):
            raise ModelConfigError(f"{FILE_NAME}: {field}: expected a whole number, given {given!r}")
        threads[name] = int(given)
        _check_range(field, threads[name], 0, MAX_THREADS)
    return threads


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
