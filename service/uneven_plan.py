"""How requests of different shapes share a version's batches: the configuration checked against the model file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.config_datatypes import CONFIG_DATATYPES, name_datatype
from service.config_text import FILE_NAME, ModelConfigError
from service.pad_values import encode_element
from service.pb.model_config_pb2 import BatchInput, DataType, ModelConfig, ModelInput, ModelOutput
from service.uneven_config import (
    PAD_PARAMETER,
    RAGGED_FIELD,
    UNCROPPED_PARAMETER,
    Padding,
    list_entries,
    parameter_error,
)

if TYPE_CHECKING:
    from kernels.session import TensorSpec

# As kernels/uneven_rules has it.
MAX_PADDED_LENGTHS = 16


@dataclass(frozen=True)
class MadePlan:
    """An input that the server makes, by the name of its kind in BatchInput."""

    input: str
    kind: str
    source: str


@dataclass(frozen=True)
class ScatterPlan:
    """An output that has all requests' elements end to end, and one request's shape, the batch first."""

    output: str
    shape: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class UnevenPlan:
    """How requests of different shapes share batches.

    Attributes
    ----------
    ragged
        Inputs whose elements the model gets end to end: the shape of a request's, the batch first.
    fillers
        The element that pads each padded input.
    """

    ragged: Mapping[str, tuple[int, ...]]
    made: tuple[MadePlan, ...]
    scattered: tuple[ScatterPlan, ...]
    fillers: Mapping[str, bytes]
    multiple: int
    max_ratio: float
    uncropped: frozenset[str]

    @property
    def inputs(self) -> frozenset[str]:
        """The inputs that the server fills."""
        return frozenset(one.input for one in self.made)

    @property
    def apart(self) -> frozenset[str]:
        """The tensors whose shapes in the model have nothing to do with those of requests."""
        return frozenset([*self.ragged, *(one.output for one in self.scattered)])


def find_dims(tensor: ModelInput | ModelOutput) -> Sequence[int]:
    """A tensor's dims as the model knows them."""
    return tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims


def find_apart(proto: ModelConfig) -> frozenset[str]:
    """The tensors whose dims are not the model file's: ragged inputs, and outputs that are scattered."""
    ragged = [given.name for given in proto.input if given.allow_ragged_batch]
    return frozenset([*ragged, *(name for given in proto.batch_output for name in given.target_name)])


def find_made(proto: ModelConfig) -> frozenset[tuple[str, str]]:
    """The inputs that the server makes of a batch, as ("input", name)."""
    return frozenset(("input", name) for given in proto.batch_input for name in given.target_name)


class UnevenPlanner:
    """Checks a completed configuration against a model's tensors.

    Parameters
    ----------
    proto
        All that callers see is in its inputs and outputs.
    shapes
        What the model gets and makes of each tensor that callers see, by side and name.
    stateful
        Names of the inputs and outputs, by side, by which sequences are kept.
    """

    def __init__(
        self,
        proto: ModelConfig,
        inputs: Sequence["TensorSpec"],
        outputs: Sequence["TensorSpec"],
        shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
        stateful: frozenset[tuple[str, str]],
    ):
        self._proto = proto
        self._specs = {"input": {spec.name: spec for spec in inputs}, "output": {spec.name: spec for spec in outputs}}
        self._seen = {tensor.name: tensor for tensor in proto.input}
        self._shapes = shapes
        self._stateful = stateful

    def plan(self, padding: Padding | None) -> UnevenPlan | None:
        """The plan; None where all requests of a batch have one shape.

        Raises
        ------
        ModelConfigError
            The configuration and the model file contradict each other.
        """
        ragged = {given.name: self._plan_ragged(given) for given in self._proto.input if given.allow_ragged_batch}
        entries = list_entries(self._proto, "batch_input")
        made = tuple(plan for where, given in entries for plan in self._plan_made(where, given))
        scattered = tuple(self._plan_scattered())
        if not (ragged or made or scattered or padding):
            return None
        return UnevenPlan(
            ragged=ragged,
            made=made,
            scattered=scattered,
            fillers=self._plan_padding(padding) if padding else {},
            multiple=padding.multiple if padding else 1,
            max_ratio=padding.max_ratio if padding else 1.0,
            uncropped=padding.uncropped if padding else frozenset(),
        )

    # ---- ragged

    def _plan_ragged(self, given: ModelInput) -> tuple[int, ...]:
        shape = self._specs["input"][given.name].shape
        if shape != (-1,):
            raise ModelConfigError(
                f"{FILE_NAME}: input {given.name!r}: {RAGGED_FIELD}: expected a model file whose shape is [-1], given "
                f"{list(shape)}"
            )
        return _shape_request(given)

    def _plan_made(self, where: str, given: BatchInput) -> Iterator[MadePlan]:
        source = self._find_source(where, given.source_input[0])
        is_table = given.kind == BatchInput.BATCH_ITEM_SHAPE
        for name in given.target_name:
            spec = self._specs["input"].get(name)
            if spec is None or ("input", name) in self._stateful:
                known = ", ".join(sorted(self._specs["input"].keys() - self._seen.keys())) or "none"
                raise ModelConfigError(
                    f"{where}.target_name: expected an input of the model that nobody else fills, of {known}, given "
                    f"{name!r}"
                )
            if given.data_type != CONFIG_DATATYPES[spec.datatype]:
                expected = name_datatype(CONFIG_DATATYPES[spec.datatype])
                raise ModelConfigError(
                    f"{where}.data_type: expected {expected}, as input {name!r} has in the model file, given "
                    f"{name_datatype(given.data_type)}"
                )
            columns = (len(_shape_request(source)) - 1,) if is_table else ()
            if len(spec.shape) != 1 + len(columns) or any(dim not in (-1, *columns) for dim in spec.shape[1:]):
                raise ModelConfigError(
                    f"{where}.target_name: expected an input of shape {[-1, *columns]} for "
                    f"{BatchInput.Kind.Name(given.kind)}, given {name!r} of {list(spec.shape)}"
                )
            yield MadePlan(name, BatchInput.Kind.Name(given.kind), source.name)

    def _find_source(self, where: str, name: str) -> ModelInput:
        source = self._seen.get(name)
        if source is None or source.optional:
            known = ", ".join(sorted(name for name, tensor in self._seen.items() if not tensor.optional))
            raise ModelConfigError(
                f"{where}.source_input: expected an input that every request has, one of {known}, given {name!r}"
            )
        return source

    def _plan_scattered(self) -> Iterator[ScatterPlan]:
        outputs = {tensor.name: tensor for tensor in self._proto.output}
        for where, given in list_entries(self._proto, "batch_output"):
            source = self._find_source(where, given.source_input[0])
            rank = len(_shape_request(source))
            for name in given.target_name:
                shape = _shape_request(outputs[name])
                if ("output", name) in self._stateful:
                    raise ModelConfigError(f"{where}.target_name: expected an output that is no state, given {name!r}")
                if -1 in shape[rank:]:
                    raise ModelConfigError(
                        f"{where}.source_input: expected an input with the open dimensions of {name!r}, "
                        f"{list(shape[1:])}, given {source.name!r} with {rank - 1}"
                    )
                yield ScatterPlan(name, shape, source.name)

    # ---- padded

    def _plan_padding(self, padding: Padding) -> dict[str, bytes]:
        if self._proto.max_batch_size == 0:
            raise parameter_error(PAD_PARAMETER, "expected max_batch_size of at least 1 beside it, given 0")
        for state in self._proto.sequence_batching.state:
            if -1 in state.dims:
                raise parameter_error(
                    PAD_PARAMETER,
                    f"expected states of fixed dims beside it, since a state would keep the padding, given "
                    f"{state.input_name!r} of {list(state.dims)}",
                )
        lengths: set[object] = set()
        fillers = {}
        for name, value in padding.inputs.items():
            lengths.update(self._list_lengths(name))
            fillers[name] = encode_element(name, self._specs["input"][name].datatype, value)
        if len(lengths) > MAX_PADDED_LENGTHS:
            raise parameter_error(
                PAD_PARAMETER,
                f"expected at most {MAX_PADDED_LENGTHS} dimensions of different names, given {len(lengths)}",
            )
        for side, specs in self._specs.items():
            for spec in specs.values():
                if side == "output" or spec.name not in fillers:
                    self._check_neighbour(side, spec, lengths, padding.uncropped)
        for name in padding.uncropped:
            if name not in self._shapes["output"]:
                known = ", ".join(sorted(self._shapes["output"]))
                raise parameter_error(UNCROPPED_PARAMETER, f"expected outputs of the model, of {known}, given {name!r}")
        return fillers

    def _list_lengths(self, name: str) -> list[object]:
        """The names of an input's open dimensions; one without a name is its own."""
        tensor = self._seen.get(name)
        if tensor is None or tensor.optional or tensor.allow_ragged_batch or tensor.data_type == DataType.TYPE_STRING:
            raise parameter_error(
                PAD_PARAMETER, f"expected inputs of numbers that are neither optional nor ragged, given {name!r}"
            )
        spec = self._specs["input"][name]
        found = [spec.dim_names[axis] or (name, axis) for axis in _list_open(self._shapes["input"][name])]
        if not found:
            raise parameter_error(
                PAD_PARAMETER, f"expected inputs with an open dimension beside the batch, given {name!r}"
            )
        return found

    def _check_neighbour(self, side: str, spec: "TensorSpec", lengths: set[object], uncropped: frozenset[str]) -> None:
        """Refuse what would be wrong in a padded batch: a length that is not padded too, or is not cropped again."""
        shape = self._shapes[side].get(spec.name, spec.shape)
        for axis in _list_open(shape):
            name = spec.dim_names[axis]
            if (side, spec.name) in self._stateful and name in lengths:
                raise parameter_error(
                    PAD_PARAMETER, f"expected dimensions that no state has, given {name!r}, which {spec.name!r} has too"
                )
            if side == "input" and name in lengths:
                raise parameter_error(
                    PAD_PARAMETER, f"expected {spec.name!r} too, whose dimension {axis} is {name!r} as well"
                )
            is_known = name in lengths or spec.name in uncropped or ("output", spec.name) in self._stateful
            if side == "output" and not is_known and spec.name in self._shapes[side]:
                raise parameter_error(
                    PAD_PARAMETER,
                    f"dimension {axis} of output {spec.name!r} is open and has the name of no padded one, so that what "
                    f"callers get of it would depend on the batch; fix it in dims, or name the output in "
                    f"{UNCROPPED_PARAMETER} if it does not",
                )


def _list_open(shape: Sequence[int]) -> list[int]:
    """The open dimensions but for the batch."""
    return [axis for axis, dim in enumerate(shape) if axis > 0 and dim == -1]


def _shape_request(tensor: ModelInput | ModelOutput) -> tuple[int, ...]:
    """The shape of a request's tensor as the model knows it, the batch first."""
    return (-1, *find_dims(tensor))
