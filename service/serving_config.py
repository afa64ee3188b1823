"""How one model version serves: what its operator wrote, completed from the model file and checked against it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernels.queue_options import QueueOptions
from service.config_datatypes import CONFIG_DATATYPES, name_datatype
from service.config_text import FILE_NAME, ModelConfigError
from service.device_config import choose_graph_batches, is_on_gpu
from service.model_config import BACKEND, MODEL_FILE, PLATFORM, WrittenConfig
from service.pb.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOptimizationPolicy,
    ModelOutput,
)
from service.queue_config import check_preferred_sizes
from service.sequence_plan import SequencePlan, complete_sequences, find_hidden, find_stateful
from service.uneven_plan import UnevenPlan, UnevenPlanner, find_apart, find_dims, find_made

if TYPE_CHECKING:
    from kernels.session import TensorSpec

GraphSpec = ModelOptimizationPolicy.Cuda.GraphSpec


@dataclass(frozen=True)
class ServingConfig:
    """Everything that serving one model version needs to know.

    Attributes
    ----------
    max_batch_size
        Most rows of one run; 0 runs one request at a time.
    queue_delay_us
        How long a batch may wait for more requests, in microseconds; 0 where there are no batches.
    queueing
        Who waits where and for how long, and when a batch that is not full runs.
    inputs, outputs
        As requests see them: the batch first where there is one, -1 for a dimension that may vary.
        Without what the server fills in and takes itself.
    input_shapes, output_shapes
        The shapes of all of the model's tensors, in its order, as requests have them.
    model_inputs, model_outputs
        The shapes of the same as the model has them, which differ where they are reshaped.
    graph_batches
        The batch sizes to record on GPUs, ascending; none where that is not asked for.
    label_files
        The file of labels of each output of the model, empty for none.
    sequences
        How the version keeps sequences; None when its requests have nothing to do with each other.
    uneven
        How requests of different shapes share batches; None where those of a batch have one.
    proto
        The same as a ModelConfig, with nothing left to fill in.
    """

    name: str
    max_batch_size: int
    queue_delay_us: int
    instance_count: int
    queueing: QueueOptions
    intra_op_threads: int
    inter_op_threads: int
    inputs: tuple["TensorSpec", ...]
    outputs: tuple["TensorSpec", ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    model_inputs: tuple[tuple[int, ...], ...]
    model_outputs: tuple[tuple[int, ...], ...]
    label_files: tuple[str, ...]
    graph_batches: tuple[int, ...]
    sequences: SequencePlan | None
    uneven: UnevenPlan | None
    proto: ModelConfig

    @property
    def is_reshaped(self) -> bool:
        """Whether callers see another shape than the model anywhere."""
        return (self.input_shapes, self.output_shapes) != (self.model_inputs, self.model_outputs)

    def fills(self, name: str) -> bool:
        """Whether an input is the server's to fill."""
        return any(plan is not None and name in plan.inputs for plan in (self.sequences, self.uneven))


def complete_config(
    name: str,
    written: WrittenConfig,
    inputs: Sequence["TensorSpec"],
    outputs: Sequence["TensorSpec"],
    default_max_batch_size: int,
    gpus: Sequence[int] = (),
    instances: int | None = None,
) -> ServingConfig:
    """Fill in from the model file what the configuration leaves out, and check the rest against it.

    Parameters
    ----------
    gpus
        Numbers of the GPUs that the model's sessions were opened on.
    instances
        How many there are of the model, where that is not as the configuration has it: one for each of several GPUs.

    Raises
    ------
    ModelConfigError
        The configuration and the model file contradict each other; the text names the field, expected and given.
    """
    max_batch_size = _choose_max_batch_size(written, inputs, outputs, default_max_batch_size)
    check_preferred_sizes(written.queueing, max_batch_size)
    proto = ModelConfig()
    proto.CopyFrom(written.proto)
    proto.name, proto.platform, proto.backend = name, PLATFORM, BACKEND
    proto.max_batch_size = max_batch_size
    graph_batches = choose_graph_batches(written.devices, max_batch_size)
    if graph_batches:
        del proto.optimization.cuda.graph_spec[:]
        proto.optimization.cuda.graph_spec.extend(GraphSpec(batch_size=size) for size in graph_batches)
    sequences = complete_sequences(proto, inputs, outputs, max_batch_size, instances or written.instance_count)
    stateful, apart = find_stateful(proto), find_apart(proto)
    hidden = find_hidden(proto) | find_made(proto)
    seen, made = {}, {}
    for field, specs in (("input", inputs), ("output", outputs)):
        shown = [spec for spec in specs if (field, spec.name) not in hidden]
        seen[field], made[field] = _complete_tensors(proto, field, shown, int(max_batch_size > 0), apart)
    uneven = UnevenPlanner(proto, inputs, outputs, made, stateful).plan(written.padding)
    label_files = {output.name: output.label_filename for output in proto.output}
    if max_batch_size > 0 and sequences is None:
        proto.dynamic_batching.SetInParent()
    if not proto.HasField("version_policy"):
        proto.version_policy.all.SetInParent()
    proto.default_model_filename = proto.default_model_filename or MODEL_FILE
    if not proto.instance_group:
        proto.instance_group.add()
    for index, group in enumerate(proto.instance_group):
        group.name = group.name or f"{name}_{index}"
        group.count = group.count or 1
        if is_on_gpu(group, gpus) and gpus:
            group.kind = ModelInstanceGroup.KIND_GPU
            group.gpus[:] = group.gpus or gpus
        else:
            group.kind = ModelInstanceGroup.KIND_CPU
            del group.gpus[:]
    return ServingConfig(
        name=name,
        max_batch_size=max_batch_size,
        queue_delay_us=_choose_delay(written, max_batch_size, sequences),
        instance_count=written.instance_count,
        queueing=written.queueing._replace(keeps_order=sequences.keeps_order) if sequences else written.queueing,
        intra_op_threads=written.intra_op_threads,
        inter_op_threads=written.inter_op_threads,
        inputs=seen["input"],
        outputs=seen["output"],
        input_shapes=_list_shapes(inputs, {spec.name: spec.shape for spec in seen["input"]}),
        output_shapes=_list_shapes(outputs, {spec.name: spec.shape for spec in seen["output"]}),
        model_inputs=_list_shapes(inputs, made["input"]),
        model_outputs=_list_shapes(outputs, made["output"]),
        label_files=tuple(label_files.get(spec.name, "") for spec in outputs),
        graph_batches=graph_batches,
        sequences=sequences,
        uneven=uneven,
        proto=proto,
    )


def _choose_delay(written: WrittenConfig, max_batch_size: int, sequences: SequencePlan | None) -> int:
    if max_batch_size == 0:
        return 0
    return written.queue_delay_us if sequences is None else sequences.queue_delay_us


def _list_shapes(specs: Sequence["TensorSpec"], shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """A shape for each of the model's tensors: its own where none is given, as of those that callers do not see."""
    return tuple(shapes.get(spec.name, spec.shape) for spec in specs)


def _choose_max_batch_size(
    written: WrittenConfig, inputs: Sequence["TensorSpec"], outputs: Sequence["TensorSpec"], default: int
) -> int:
    if written.max_batch_size is None:
        return default if has_batch_dimension(inputs, outputs) and not _gives_whole_shapes(written, inputs) else 0
    if written.max_batch_size > 0:
        for kind, specs in (("input", inputs), ("output", outputs)):
            for spec in specs:
                if not spec.shape or spec.shape[0] != -1:
                    raise ModelConfigError(
                        f"{FILE_NAME}: max_batch_size: expected 0, given {written.max_batch_size}: the first dimension "
                        f"of {kind} {spec.name!r} is not open in the model file, whose shape is {list(spec.shape)}"
                    )
    return written.max_batch_size


def has_batch_dimension(inputs: Sequence["TensorSpec"], outputs: Sequence["TensorSpec"]) -> bool:
    """Whether the first dimension of every input and output is open and carries one name, or none carries any."""
    specs = (*inputs, *outputs)
    is_open = all(spec.shape and spec.shape[0] == -1 for spec in specs)
    return bool(inputs) and is_open and len({spec.dim_names[0] for spec in specs}) == 1


def _gives_whole_shapes(written: WrittenConfig, inputs: Sequence["TensorSpec"]) -> bool:
    """Whether the configuration counts the first dimension among its dims, as those without batches do."""
    ranks = {spec.name: len(spec.shape) for spec in inputs}
    shapes = {
        given.name: given.reshape.shape if given.HasField("reshape") else given.dims for given in written.proto.input
    }
    return any(len(shape) == ranks.get(name) for name, shape in shapes.items())


def _complete_tensors(
    proto: ModelConfig, field: str, specs: Sequence["TensorSpec"], batch_dims: int, apart: frozenset[str]
) -> tuple[tuple["TensorSpec", ...], dict[str, tuple[int, ...]]]:
    """Put the tensors of `field` into the model's order, filled in and checked.

    Returns
    -------
    tuple
        Their specs for requests, and their shapes in the model by name.
    """
    tensors = getattr(proto, field)
    given = _index_by_name(field, tensors, {spec.name for spec in specs})
    message = ModelInput if field == "input" else ModelOutput
    completed = [_complete_tensor(field, given.get(spec.name, message()), spec, batch_dims, apart) for spec in specs]
    del tensors[:]
    tensors.extend(completed)
    pairs = list(zip(specs, completed, strict=True))
    seen = tuple(spec._replace(shape=(*spec.shape[:batch_dims], *tensor.dims)) for spec, tensor in pairs)
    made = {
        spec.name: (*spec.shape[:batch_dims], *find_dims(tensor)) for spec, tensor in pairs if spec.name not in apart
    }
    return seen, made


def _index_by_name(
    field: str, tensors: Iterable[ModelInput | ModelOutput], known: set[str]
) -> dict[str, ModelInput | ModelOutput]:
    given = {}
    for index, tensor in enumerate(tensors):
        where = f"{FILE_NAME}: {field}[{index}].name"
        if tensor.name not in known:
            raise ModelConfigError(f"{where}: expected one of {', '.join(sorted(known))}, given {tensor.name!r}")
        if tensor.name in given:
            raise ModelConfigError(f"{where}: expected each name once, given {tensor.name!r} again")
        given[tensor.name] = tensor
    return given


def _complete_tensor(
    field: str, given: ModelInput | ModelOutput, spec: "TensorSpec", batch_dims: int, apart: frozenset[str]
) -> ModelInput | ModelOutput:
    where = f"{FILE_NAME}: {field} {spec.name!r}"
    completed = type(given)(name=spec.name, data_type=CONFIG_DATATYPES[spec.datatype])
    if given.data_type not in (DataType.TYPE_INVALID, completed.data_type):
        expected, wrong = (name_datatype(value) for value in (completed.data_type, given.data_type))
        raise ModelConfigError(f"{where}: data_type: expected {expected}, as in the model file, given {wrong}")
    # What is ragged has the shape that the configuration says, whatever the model has of it.
    dims = list(find_dims(given)) if spec.name in apart else list(spec.shape[batch_dims:])
    if given.HasField("reshape"):
        reshaped = _narrow_dims(f"{where}: reshape.shape", list(given.reshape.shape), dims, batch_dims)
        dims = _check_reshape(where, list(given.dims), reshaped)
        completed.reshape.shape.extend(reshaped)
        completed.reshape.SetInParent()
    elif given.dims:
        dims = _narrow_dims(f"{where}: dims", list(given.dims), dims, batch_dims)
    completed.dims.extend(dims)
    if field == "input":
        completed.optional = given.optional
        completed.allow_ragged_batch = given.allow_ragged_batch
    else:
        completed.label_filename = given.label_filename
    return completed


def _check_reshape(where: str, dims: list[int], shape: list[int]) -> list[int]:
    """The dims, when they have as many elements as the shape: between each two open dimensions, and at both ends."""
    if _multiply_runs(dims) != _multiply_runs(shape) or any(dim < -1 or dim == 0 for dim in dims):
        raise ModelConfigError(
            f"{where}: reshape: expected dims with the same elements between open dimensions as shape {shape}, "
            f"given {dims}"
        )
    return dims


def _multiply_runs(dims: list[int]) -> list[int]:
    """The product of each run of fixed dimensions, which the open ones part."""
    products = [1]
    for dim in dims:
        if dim == -1:
            products.append(1)
        else:
            products[-1] *= dim
    return products


def _narrow_dims(where: str, given: list[int], expected: list[int], batch_dims: int) -> list[int]:
    """The dimensions that both allow; -1 on either side allows any."""
    agree = len(given) == len(expected) and all(map(_agree, given, expected))
    if not agree:
        batch = ", without the batch dimension" if batch_dims else ""
        raise ModelConfigError(f"{where}: expected {expected}, as in the model file{batch}, given {given}")
    return [other if one == -1 else one for one, other in zip(given, expected, strict=True)]


def _agree(given: int, expected: int) -> bool:
    return given == -1 or (given > 0 and expected in (-1, given))
