"""How a model version keeps sequences: `sequence_batching` of its configuration, completed from the model file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.config_datatypes import CONFIG_DATATYPES, name_datatype
from service.config_text import ModelConfigError
from service.pb.model_config_pb2 import DataType, ModelConfig, ModelSequenceBatching
from service.sequence_config import KINDS, VALUE_TYPES, State, check_range, list_controls, list_states

if TYPE_CHECKING:
    from kernels.session import TensorSpec

# As in Triton.
DEFAULT_IDLE_US = 1_000_000
Specs = Mapping[tuple[str, str], "TensorSpec"]


@dataclass(frozen=True)
class ControlPlan:
    """An input that the server fills; `false` and `true` are elements in raw layout, empty for an id."""

    input: str
    kind: str
    datatype: str
    false: bytes = b""
    true: bytes = b""


@dataclass(frozen=True)
class StatePlan:
    """A state: its tensors, the shape with which it begins, without a batch, and the file with its elements, if any."""

    where: str
    input: str
    output: str
    datatype: str
    shape: tuple[int, ...]
    data_file: str = ""


@dataclass(frozen=True)
class SequencePlan:
    """How one model version keeps sequences.

    Attributes
    ----------
    slots
        Sequences that may be under way at a time.
    queue_delay_us
        How long a batch may wait for more requests, in microseconds.
    enough_rows
        A batch of so many waits for no more; 0 is a full one.
    keeps_order
        Whether requests of different sequences, too, are answered in the order in which they left the queue.
    shown
        State outputs that callers see.
    """

    is_batched: bool
    slots: int
    idle_us: int
    queue_delay_us: int
    enough_rows: int
    keeps_order: bool
    controls: tuple[ControlPlan, ...]
    states: tuple[StatePlan, ...]
    shown: frozenset[str]

    @property
    def inputs(self) -> frozenset[str]:
        """The inputs that the server fills."""
        return frozenset(one.input for one in (*self.controls, *self.states))

    @property
    def takes_texts(self) -> bool:
        """Whether the model is told ids, and as texts: numbers are then no ids."""
        return any(one.kind == "id" and one.datatype == "BYTES" for one in self.controls)


def find_hidden(proto: ModelConfig) -> frozenset[tuple[str, str]]:
    """The tensors that callers do not see, as ("input" or "output", name).

    Those are inputs of controls and states, and outputs of states that are not listed among the outputs.
    """
    given = proto.sequence_batching
    listed = {output.name for output in proto.output}
    inputs = [one.name for one in given.control_input] + [state.input_name for state in given.state]
    outputs = [state.output_name for state in given.state if state.output_name not in listed]
    return frozenset([*(("input", name) for name in inputs), *(("output", name) for name in outputs)])


def find_stateful(proto: ModelConfig) -> frozenset[tuple[str, str]]:
    """The tensors by which sequences are kept, as ("input" or "output", name), whether callers see them or not."""
    given = proto.sequence_batching
    inputs = [one.name for one in given.control_input] + [state.input_name for state in given.state]
    outputs = [state.output_name for state in given.state]
    return frozenset([*(("input", name) for name in inputs), *(("output", name) for name in outputs)])


def complete_sequences(
    proto: ModelConfig,
    inputs: Sequence["TensorSpec"],
    outputs: Sequence["TensorSpec"],
    max_batch_size: int,
    instance_count: int,
) -> SequencePlan | None:
    """Fill in what `sequence_batching` leaves out, and check it against the model; None without it.

    Raises
    ------
    ModelConfigError
        The configuration and the model file contradict each other.
    """
    if not proto.HasField("sequence_batching"):
        return None
    given, batch_dims = proto.sequence_batching, int(max_batch_size > 0)
    by_name = {("input", spec.name): spec for spec in inputs} | {("output", spec.name): spec for spec in outputs}
    given.max_sequence_idle_microseconds = given.max_sequence_idle_microseconds or DEFAULT_IDLE_US
    if not given.HasField("oldest"):
        given.direct.SetInParent()
    listed = {output.name for output in proto.output}
    return SequencePlan(
        is_batched=max_batch_size > 0,
        slots=instance_count * _count_slots(given, max_batch_size),
        idle_us=given.max_sequence_idle_microseconds,
        queue_delay_us=_choose_delay(given) if max_batch_size > 0 else 0,
        enough_rows=_choose_rows(given, max_batch_size),
        keeps_order=given.oldest.preserve_ordering,
        controls=tuple(_plan_control(where, one, by_name, batch_dims) for where, one in list_controls(given)),
        states=tuple(_plan_state(where, state, by_name, batch_dims) for where, state in list_states(given)),
        shown=frozenset(state.output_name for state in given.state if state.output_name in listed),
    )


def _count_slots(given: ModelSequenceBatching, max_batch_size: int) -> int:
    """Sequences of one instance at a time."""
    return given.oldest.max_candidate_sequences if given.HasField("oldest") else max(max_batch_size, 1)


def _choose_delay(given: ModelSequenceBatching) -> int:
    if given.HasField("oldest"):
        return given.oldest.max_queue_delay_microseconds
    # One slot that is ready is enough, so that nothing is waited for.
    return given.direct.max_queue_delay_microseconds if given.direct.minimum_slot_utilization > 0 else 0


def _choose_rows(given: ModelSequenceBatching, max_batch_size: int) -> int:
    for size in given.oldest.preferred_batch_size:
        check_range("oldest.preferred_batch_size", size, 1, max(max_batch_size, 1))
    if given.HasField("oldest"):
        return min(given.oldest.preferred_batch_size, default=0)
    return math.ceil(given.direct.minimum_slot_utilization * max_batch_size)


def _find_tensor(where: str, side: str, name: str, by_name: Specs, datatype: int) -> "TensorSpec":
    spec = by_name.get((side, name))
    if spec is None:
        names = ", ".join(sorted(known for kind, known in by_name if kind == side))
        raise ModelConfigError(f"{where}: expected an {side} of the model, one of {names}, given {name!r}")
    if datatype not in (DataType.TYPE_INVALID, CONFIG_DATATYPES[spec.datatype]):
        expected = name_datatype(CONFIG_DATATYPES[spec.datatype])
        raise ModelConfigError(
            f"{where}: {side} {name!r} has data type {expected} in the model file, given {name_datatype(datatype)}"
        )
    return spec


def _plan_control(
    where: str,
    given: ModelSequenceBatching.ControlInput,
    by_name: Specs,
    batch_dims: int,
) -> ControlPlan:
    control = given.control[0]
    field = next((name for name in VALUE_TYPES if len(getattr(control, name)) > 0), None)
    datatype, dtype = VALUE_TYPES[field] if field else (control.data_type, None)
    spec = _find_tensor(where, "input", given.name, by_name, datatype)
    if any(dim not in (-1, 1) for dim in spec.shape[batch_dims:]):
        raise ModelConfigError(
            f"{where}.name: expected an input with one element for each request, given {given.name!r} of shape "
            f"{list(spec.shape)}"
        )
    false, true = (dtype(value).tobytes() for value in getattr(control, field)) if field else (b"", b"")
    return ControlPlan(given.name, KINDS[control.kind], spec.datatype, false, true)


def _plan_state(where: str, given: State, by_name: Specs, batch_dims: int) -> StatePlan:
    taken = _find_tensor(f"{where}.input_name", "input", given.input_name, by_name, given.data_type)
    made = _find_tensor(f"{where}.output_name", "output", given.output_name, by_name, CONFIG_DATATYPES[taken.datatype])
    given.data_type = CONFIG_DATATYPES[taken.datatype]
    dims = list(given.dims) or list(taken.shape[batch_dims:])
    for side, spec in (("input", taken), ("output", made)):
        _check_fits(f"{where}.dims", dims, list(spec.shape[batch_dims:]), f"{side} {spec.name!r}")
    taken_dims = list(taken.shape[batch_dims:])
    _check_fits(f"{where}.output_name", list(made.shape[batch_dims:]), taken_dims, f"input {taken.name!r}")
    del given.dims[:]
    given.dims.extend(dims)
    fixed = [file_dim if dim == -1 else dim for dim, file_dim in zip(dims, taken_dims, strict=True)]
    # As in Triton, what is open is 1 at first.
    shape, data_file = tuple(1 if dim == -1 else dim for dim in fixed), ""
    for initial in given.initial_state:
        if initial.data_type not in (DataType.TYPE_INVALID, given.data_type):
            raise ModelConfigError(
                f"{where}.initial_state[0].data_type: expected {name_datatype(given.data_type)}, as the state has, "
                f"given {name_datatype(initial.data_type)}"
            )
        if initial.dims:
            _check_fits(f"{where}.initial_state[0].dims", list(initial.dims), fixed, "the state")
            if min(initial.dims) < 0:
                raise ModelConfigError(
                    f"{where}.initial_state[0].dims: expected fixed ones, given {list(initial.dims)}"
                )
            shape = tuple(initial.dims)
        data_file = initial.data_file
    return StatePlan(where, given.input_name, given.output_name, taken.datatype, shape, data_file)


def _check_fits(where: str, given: list[int], expected: list[int], whose: str) -> None:
    pairs = zip(given, expected, strict=False)
    if len(given) != len(expected) or any(
        one < -1 or (-1 not in (one, other) and one != other) for one, other in pairs
    ):
        raise ModelConfigError(f"{where}: expected {expected}, as {whose} has, without a batch, given {given}")
