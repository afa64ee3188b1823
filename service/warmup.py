"""Runs that a model's configuration asks for before the model takes requests: `model_warmup`, as in Triton."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kernels.datatype import DATATYPES
from service.config_text import FILE_NAME, ModelConfigError
from service.model_folders import ModelFolder, find_warmup_file
from service.pb import open_inference_pb2 as pb
from service.pb.model_config_pb2 import DataType, ModelWarmup
from service.sequence_plan import SequencePlan
from service.serving_config import CONFIG_DATATYPES, ServingConfig

if TYPE_CHECKING:
    from kernels.session import TensorSpec

# Bytes of an element; BYTES have no size of their own.
ELEMENT_BYTES = {row.name: row.size for row in DATATYPES if row.size}
FLOATS = {row.name: row.dtype for row in DATATYPES if row.dtype.startswith("float")}
LENGTH_BYTES = 4
RANDOM_TEXT_BYTES = 8
MAX_INPUT_BYTES = 2**30
MAX_COUNT = 100_000
WARMUP_SEQUENCE = 1
# The same numbers at every start: a model that fails on some of them is to fail each time.
SEED = 1


@dataclass(frozen=True)
class WarmupRun:
    """One entry of model_warmup: a ModelInferRequest on the wire, and how often it is to run."""

    name: str
    message: bytes
    count: int


def make_warmups(config: ServingConfig, folder: ModelFolder) -> Iterator[WarmupRun]:
    """The runs that a model's configuration asks for, one at a time, since they may be large.

    Raises
    ------
    ModelConfigError, ModelFolderError
        An entry does not fit the model, or its data cannot be read.
    """
    specs = {spec.name: spec for spec in config.inputs}
    for index, entry in enumerate(config.proto.model_warmup):
        where = f"{FILE_NAME}: model_warmup[{index}]"
        _check_entry(where, entry, config)
        request, rows = pb.ModelInferRequest(model_name=config.name, id=entry.name), _Rows(config, entry)
        if config.sequences is not None:
            _make_sequence(request, config.sequences)
        for name in sorted(entry.inputs):
            if config.fills(name):
                continue
            if name not in specs:
                raise ModelConfigError(f"{where}.inputs: expected inputs of the model, given {name!r}")
            _add_input(request, f"{where}.inputs[{name!r}]", entry.inputs[name], specs[name], rows, folder)
        yield WarmupRun(entry.name or str(index), request.SerializeToString(), entry.count or 1)


class _Rows:
    """How many rows a run has, and the dimensions that stand for them in a shape."""

    def __init__(self, config: ServingConfig, entry: ModelWarmup):
        self.count = max(entry.batch_size, 1)
        self.dims = [self.count] if config.max_batch_size > 0 else []


def _check_entry(where: str, entry: ModelWarmup, config: ServingConfig) -> None:
    # A request of a sequence has one row.
    most = max(config.max_batch_size, 1) if config.sequences is None else 1
    if entry.batch_size > most:
        raise ModelConfigError(f"{where}.batch_size: expected at most {most}, given {entry.batch_size}")
    if entry.count > MAX_COUNT:
        raise ModelConfigError(f"{where}.count: expected at most {MAX_COUNT}, given {entry.count}")


def _make_sequence(request: pb.ModelInferRequest, plan: SequencePlan) -> None:
    """Have a run be a whole sequence, whose first states and controls it gets."""
    if plan.takes_texts:
        request.parameters["sequence_id"].string_param = str(WARMUP_SEQUENCE)
    else:
        request.parameters["sequence_id"].int64_param = WARMUP_SEQUENCE
    request.parameters["sequence_start"].bool_param = request.parameters["sequence_end"].bool_param = True


def _add_input(
    request: pb.ModelInferRequest,
    where: str,
    given: ModelWarmup.Input,
    spec: "TensorSpec",
    rows: _Rows,
    folder: ModelFolder,
) -> None:
    if given.data_type != CONFIG_DATATYPES[spec.datatype]:
        expected = DataType.Name(CONFIG_DATATYPES[spec.datatype])
        raise ModelConfigError(f"{where}.data_type: expected {expected}, as in the model, given {given.data_type}")
    if any(dim < 0 for dim in given.dims):
        raise ModelConfigError(f"{where}.dims: expected numbers of at least 0, given {list(given.dims)}")
    elements = math.prod(given.dims)
    if elements * rows.count * ELEMENT_BYTES.get(spec.datatype, LENGTH_BYTES + RANDOM_TEXT_BYTES) > MAX_INPUT_BYTES:
        raise ModelConfigError(f"{where}.dims: expected at most {MAX_INPUT_BYTES} bytes, given {list(given.dims)}")
    request.inputs.add(name=spec.name, datatype=spec.datatype, shape=[*rows.dims, *given.dims])
    request.raw_input_contents.append(_make_content(where, given, spec.datatype, elements, rows.count, folder))


def _make_content(
    where: str, given: ModelWarmup.Input, datatype: str, elements: int, rows: int, folder: ModelFolder
) -> bytes:
    source = given.WhichOneof("input_data_type")
    if source == "zero_data":
        # Zeros are also the lengths of empty texts.
        return bytes(elements * rows * ELEMENT_BYTES.get(datatype, LENGTH_BYTES))
    if source == "random_data":
        return _make_random(datatype, elements * rows)
    if source != "input_data_file":
        raise ModelConfigError(f"{where}: expected one of zero_data, random_data, input_data_file, given none")
    return _read_row(where, given.input_data_file, datatype, elements, folder) * rows


def _read_row(where: str, name: str, datatype: str, elements: int, folder: ModelFolder) -> bytes:
    """The content of a file, which is one row as requests carry it."""
    path = find_warmup_file(folder, name)
    size, expected = path.stat().st_size, elements * ELEMENT_BYTES.get(datatype, 0)
    if datatype != "BYTES" and size != expected:
        raise ModelConfigError(f"{where}.input_data_file: expected {expected} bytes, given {size} in {name}")
    if size > MAX_INPUT_BYTES:
        raise ModelConfigError(f"{where}.input_data_file: expected at most {MAX_INPUT_BYTES} bytes, given {size}")
    return path.read_bytes()


def _make_random(datatype: str, elements: int) -> bytes:
    """Floats from 0 to 1, any whole numbers, texts of 8 letters."""
    generator = np.random.default_rng(SEED)
    if datatype in FLOATS:
        return generator.random(elements).astype(FLOATS[datatype]).tobytes()
    if datatype == "BF16":
        # The upper half of an FP32.
        halves = generator.random(elements, np.float32).view(np.uint32) >> 16
        return halves.astype(np.uint16).tobytes()
    if datatype == "BOOL":
        return generator.integers(0, 2, elements, np.uint8).tobytes()
    if datatype == "BYTES":
        texts = generator.integers(ord("a"), ord("z") + 1, (elements, LENGTH_BYTES + RANDOM_TEXT_BYTES), np.uint8)
        texts[:, :LENGTH_BYTES] = np.frombuffer(RANDOM_TEXT_BYTES.to_bytes(LENGTH_BYTES, "little"), np.uint8)
        return texts.tobytes()
    return generator.bytes(elements * ELEMENT_BYTES[datatype])
