"""`sequence_batching` of config.pbtxt as it is written: checked as far as that goes without the model."""

from collections.abc import Iterator, Sequence

import numpy as np

from service.config_datatypes import name_datatype
from service.config_text import FILE_NAME, ModelConfigError
from service.pb.model_config_pb2 import DataType, ModelConfig, ModelSequenceBatching

Control = ModelSequenceBatching.Control
State = ModelSequenceBatching.State

FIELD = f"{FILE_NAME}: sequence_batching"
MAX_IDLE_US = 1_000_000_000_000
MAX_QUEUE_DELAY_US = 10_000_000
MAX_CANDIDATES = 2**20

KINDS = {
    Control.CONTROL_SEQUENCE_START: "start",
    Control.CONTROL_SEQUENCE_READY: "ready",
    Control.CONTROL_SEQUENCE_END: "end",
    Control.CONTROL_SEQUENCE_CORRID: "id",
}
# By the field that gives a control's values for false and true.
VALUE_TYPES = {
    "int32_false_true": (DataType.TYPE_INT32, np.int32),
    "fp32_false_true": (DataType.TYPE_FP32, np.float32),
    "bool_false_true": (DataType.TYPE_BOOL, np.bool_),
}
ID_TYPES = (
    DataType.TYPE_UINT64,
    DataType.TYPE_INT64,
    DataType.TYPE_UINT32,
    DataType.TYPE_INT32,
    DataType.TYPE_STRING,
)


def check_sequences(proto: ModelConfig) -> None:
    """Check what a configuration says of sequences as far as that goes without the model.

    Raises
    ------
    ModelConfigError
        A value is out of range, missing or given twice; the text names the field.
    """
    if not proto.HasField("sequence_batching"):
        return
    given = proto.sequence_batching
    if proto.response_cache.enable:
        raise ModelConfigError(
            f"{FILE_NAME}: response_cache.enable: expected false with sequence_batching, whose answers depend on the "
            "requests before, given true"
        )
    check_range("max_sequence_idle_microseconds", given.max_sequence_idle_microseconds, 0, MAX_IDLE_US)
    check_range("direct.max_queue_delay_microseconds", given.direct.max_queue_delay_microseconds, 0, MAX_QUEUE_DELAY_US)
    check_range("oldest.max_queue_delay_microseconds", given.oldest.max_queue_delay_microseconds, 0, MAX_QUEUE_DELAY_US)
    utilization = given.direct.minimum_slot_utilization
    if not 0 <= utilization <= 1:
        raise ModelConfigError(f"{FIELD}.direct.minimum_slot_utilization: expected 0 to 1, given {utilization:g}")
    if given.HasField("oldest"):
        check_range("oldest.max_candidate_sequences", given.oldest.max_candidate_sequences, 1, MAX_CANDIDATES)
    kinds = [_check_control(where, control_input) for where, control_input in list_controls(given)]
    for kind in KINDS:
        if kinds.count(kind) > 1:
            raise ModelConfigError(f"{FIELD}.control_input: expected one {Control.Kind.Name(kind)}, given several")
    for where, state in list_states(given):
        _check_state(where, state)
    names = [one.name for one in given.control_input] + [state.input_name for state in given.state]
    _check_unique("an input", names)
    _check_unique("an output", [state.output_name for state in given.state])


def check_range(field: str, given: int, low: int, high: int) -> None:
    """Raise ModelConfigError for a field of sequence_batching that is out of range."""
    if not low <= given <= high:
        raise ModelConfigError(f"{FIELD}.{field}: expected a number from {low} to {high}, given {given}")


def _check_unique(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ModelConfigError(f"{FIELD}: expected {what} in one control or state, given {name!r} in several")


def list_controls(given: ModelSequenceBatching) -> Iterator[tuple[str, ModelSequenceBatching.ControlInput]]:
    """Each input with controls, and where it stands."""
    for index, control_input in enumerate(given.control_input):
        yield f"{FIELD}.control_input[{index}]", control_input


def list_states(given: ModelSequenceBatching) -> Iterator[tuple[str, State]]:
    """Each state, and where it stands."""
    for index, state in enumerate(given.state):
        yield f"{FIELD}.state[{index}]", state


def _check_control(where: str, given: ModelSequenceBatching.ControlInput) -> int:
    """The kind of an input's only control."""
    if not given.name:
        raise ModelConfigError(f"{where}.name: expected the name of an input, given none")
    if len(given.control) != 1:
        raise ModelConfigError(f"{where}.control: expected one, given {len(given.control)}")
    control = given.control[0]
    if control.kind not in KINDS:
        raise ModelConfigError(f"{where}.control[0].kind: expected a CONTROL_SEQUENCE_…, given {control.kind}")
    given_values = [name for name in VALUE_TYPES if len(getattr(control, name)) > 0]
    if control.kind == Control.CONTROL_SEQUENCE_CORRID:
        if given_values:
            raise ModelConfigError(f"{where}.control[0].{given_values[0]}: expected none for an id")
        if control.data_type not in ID_TYPES:
            expected = ", ".join(map(name_datatype, ID_TYPES))
            raise ModelConfigError(
                f"{where}.control[0].data_type: expected one of {expected}, given {name_datatype(control.data_type)}"
            )
        return control.kind
    if len(given_values) != 1 or len(getattr(control, given_values[0])) != 2:
        raise ModelConfigError(
            f"{where}.control[0]: expected two values, for false and for true, in one of {', '.join(VALUE_TYPES)}"
        )
    return control.kind


def _check_state(where: str, given: State) -> None:
    for name in ("input_name", "output_name"):
        if not getattr(given, name):
            raise ModelConfigError(f"{where}.{name}: expected the name of a tensor, given none")
    if len(given.initial_state) > 1:
        raise ModelConfigError(f"{where}.initial_state: expected at most one, given {len(given.initial_state)}")
    for initial in given.initial_state:
        source = initial.WhichOneof("state_data")
        if source is None or (source == "data_file" and not initial.data_file):
            raise ModelConfigError(f"{where}.initial_state[0]: expected zero_data or data_file, given none")
        if source == "zero_data" and not initial.zero_data:
            raise ModelConfigError(f"{where}.initial_state[0].zero_data: expected true, or a data_file")
