"""What config.pbtxt says of requests of different shapes in one batch, ragged or padded: checked without the model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.config_datatypes import name_datatype
from service.config_text import FILE_NAME, ModelConfigError
from service.pb.model_config_pb2 import BatchInput, BatchOutput, DataType, ModelConfig

# Parameters of the configuration: Triton has no padding, and would not read fields of our own.
PAD_PARAMETER = "pad_inputs"
MULTIPLE_PARAMETER = "pad_to_multiple_of"
RATIO_PARAMETER = "max_padding_ratio"
UNCROPPED_PARAMETER = "uncropped_outputs"
UNEVEN_PARAMETERS = (PAD_PARAMETER, MULTIPLE_PARAMETER, RATIO_PARAMETER, UNCROPPED_PARAMETER)

MAX_MULTIPLE = 1024
DEFAULT_RATIO = 1.5
MAX_RATIO = 1_000_000.0

RAGGED_FIELD = "allow_ragged_batch"
BATCH_FIELDS = ("batch_input", "batch_output")
READ_UNEVEN_FIELDS = (
    f"input.{RAGGED_FIELD}",
    *(f"{field}{member}" for field in BATCH_FIELDS for member in ("", ".kind", ".target_name", ".source_input")),
    "batch_input.data_type",
)
COUNT_TYPES = (DataType.TYPE_INT32, DataType.TYPE_FP32)


@dataclass(frozen=True)
class Padding:
    """What is padded, and how.

    Attributes
    ----------
    inputs
        The value that pads each input, as it is written.
    multiple
        What lengths are rounded up to.
    max_ratio
        How many times the elements that its requests have alone a padded batch may have.
    uncropped
        Outputs that callers get as long as the padded batch makes them.
    """

    inputs: Mapping[str, str]
    multiple: int = 1
    max_ratio: float = DEFAULT_RATIO
    uncropped: frozenset[str] = frozenset()


def read_padding(parameters: Mapping[str, str]) -> Padding | None:
    """What the parameters of a configuration say of padding; None where nothing is padded.

    Raises
    ------
    ModelConfigError
        A value is out of range, or says how to pad where nothing is padded.
    """
    if PAD_PARAMETER not in parameters:
        for name in UNEVEN_PARAMETERS:
            if name in parameters:
                raise parameter_error(name, f"expected {PAD_PARAMETER} beside it, given none")
        return None
    return Padding(
        inputs=_read_values(parameters[PAD_PARAMETER]),
        multiple=_read_multiple(parameters.get(MULTIPLE_PARAMETER, "1")),
        max_ratio=_read_ratio(parameters.get(RATIO_PARAMETER, str(DEFAULT_RATIO))),
        uncropped=frozenset(_split(parameters.get(UNCROPPED_PARAMETER, ""))),
    )


def parameter_error(name: str, complaint: str) -> ModelConfigError:
    """The refusal of a parameter."""
    return ModelConfigError(f"{FILE_NAME}: parameters[{name!r}]: {complaint}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_values(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in _split(text):
        name, _, value = (piece.strip() for piece in part.rpartition("="))
        if not name or not value or name in values:
            raise parameter_error(PAD_PARAMETER, f"expected NAME=VALUE, each name once, given {part!r}")
        values[name] = value
    if not values:
        raise parameter_error(PAD_PARAMETER, f"expected at least one NAME=VALUE, given {text!r}")
    return values


def _read_multiple(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_MULTIPLE and len(text) < 9):
        raise parameter_error(MULTIPLE_PARAMETER, f"expected a number from 1 to {MAX_MULTIPLE}, given {text!r}")
    return int(text)


def _read_ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 1 <= ratio <= MAX_RATIO:
        raise parameter_error(RATIO_PARAMETER, f"expected a number from 1 to {MAX_RATIO:.0f}, given {text!r}")
    return ratio


def check_uneven(proto: ModelConfig, padding: Padding | None, records_runs: bool) -> None:
    """Check what a configuration says of uneven batches as far as that goes without the model.

    Parameters
    ----------
    records_runs
        Whether it asks for recordings of runs, which are of one shape each.

    Raises
    ------
    ModelConfigError
        A value is out of range, missing or given twice; the text names the field.
    """
    fields = _list_uneven_fields(proto)
    if padding and proto.HasField("ensemble_scheduling"):
        raise parameter_error(PAD_PARAMETER, "an ensemble has no batches; expected it with the models of its steps")
    if fields and proto.max_batch_size == 0:
        raise ModelConfigError(
            f"{FILE_NAME}: {fields[0]}: expected max_batch_size of at least 1 beside it, given "
            f"{proto.max_batch_size}: without batches there is none that could be ragged"
        )
    if records_runs and (fields or padding):
        field = fields[0] if fields else f"parameters[{PAD_PARAMETER!r}]"
        raise ModelConfigError(
            f"{FILE_NAME}: optimization.cuda.graphs: expected none beside {field}: a recorded run has one shape"
        )
    for given in proto.input:
        if given.allow_ragged_batch and (given.optional or not given.dims):
            found = "optional: true" if given.optional else "no dims"
            raise ModelConfigError(
                f"{FILE_NAME}: input {given.name!r}: {RAGGED_FIELD}: expected dims and no optional, given {found}"
            )
    _check_batch_inputs(proto)
    _check_batch_outputs(proto)


def _list_uneven_fields(proto: ModelConfig) -> list[str]:
    """The fields that say that batches are ragged, by their names."""
    ragged = [f"input {given.name!r}: {RAGGED_FIELD}" for given in proto.input if given.allow_ragged_batch]
    return ragged + [f"{field}[0]" for field in BATCH_FIELDS if len(getattr(proto, field)) > 0]


def list_entries(proto: ModelConfig, field: str) -> Iterator[tuple[str, BatchInput | BatchOutput]]:
    """Each entry of batch_input or batch_output, and where it stands."""
    for index, given in enumerate(getattr(proto, field)):
        yield f"{FILE_NAME}: {field}[{index}]", given


def _check_batch_inputs(proto: ModelConfig) -> None:
    declared, made = {given.name for given in proto.input}, set()
    for where, given in list_entries(proto, "batch_input"):
        _check_entry(where, given, BatchInput.Kind.values())
        if given.data_type not in COUNT_TYPES:
            expected = " or ".join(map(name_datatype, COUNT_TYPES))
            raise ModelConfigError(f"{where}.data_type: expected {expected}, given {name_datatype(given.data_type)}")
        for target in given.target_name:
            if target in declared:
                raise ModelConfigError(f"{where}.target_name: expected an input that is not in input, given {target!r}")
            if target in made:
                raise ModelConfigError(f"{where}.target_name: expected each input once, given {target!r} again")
            made.add(target)


def _check_batch_outputs(proto: ModelConfig) -> None:
    declared, scattered = {given.name for given in proto.output if given.dims}, set()
    for where, given in list_entries(proto, "batch_output"):
        _check_entry(where, given, BatchOutput.Kind.values())
        for target in given.target_name:
            if target not in declared:
                raise ModelConfigError(f"{where}.target_name: expected an output with dims in output, given {target!r}")
            if target in scattered:
                raise ModelConfigError(f"{where}.target_name: expected each output once, given {target!r} again")
            scattered.add(target)


def _check_entry(where: str, given: BatchInput | BatchOutput, kinds: Sequence[int]) -> None:
    if given.kind not in kinds:
        raise ModelConfigError(f"{where}.kind: expected a number from 0 to {max(kinds)}, given {given.kind}")
    if not given.target_name:
        raise ModelConfigError(f"{where}.target_name: expected at least one name, given none")
    if len(given.source_input) != 1:
        raise ModelConfigError(f"{where}.source_input: expected one input, given {len(given.source_input)}")
