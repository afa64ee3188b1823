"""Reads from an ONNX file what its model takes and gives, without opening it in ONNX Runtime.

A walk over the wire as service.onnx_file has it: it enters the graph's declarations and steps over all else.
"""

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path

from kernels.datatype import DATATYPES
from kernels.session import TensorSpec
from service.onnx_file import OnnxFileError, Walk

# Field numbers of onnx.proto, by message.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 5, 11, 12, 15
_TENSOR_NAME, _SPARSE_VALUES = 8, 1
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIM = 1, 1, 2, 1
_DIM_VALUE, _DIM_PARAMETER = 1, 2

_DATATYPES = {row.onnx_type: row.name for row in DATATYPES}

# Where a message lies in the file.
Span = tuple[int, int]


class UndeclaredError(Exception):
    """The file does not say everything about a tensor, or it is none; ONNX Runtime may know more."""


def read_declared(path: Path, optional: Collection[str] = ()) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """A model's inputs and outputs as its file declares them, in the order of kernels.session.Session.

    ONNX Runtime may find out more about an output's shape when it loads the model.

    Parameters
    ----------
    optional
        Inputs for which the file has a value and that requests may send nevertheless.

    Raises
    ------
    UndeclaredError
        A tensor has no type, no shape, or one that the protocol cannot carry.
    OnnxFileError
        As service.onnx_file.check_self_contained.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _DeclarationWalk(content).read_tensors(optional)
    except ValueError:
        raise OnnxFileError("the file is empty") from None
    except OSError as error:
        raise OnnxFileError(f"the file cannot be read: {error.strerror}") from None


class _DeclarationWalk(Walk):
    def read_tensors(self, optional: Collection[str]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        inputs, outputs, valued = [], [], set()
        for number, found in self._list_graph_fields():
            if number == _GRAPH_INPUT:
                inputs.append(self._read_value(found))
            elif number == _GRAPH_OUTPUT:
                outputs.append(self._read_value(found))
            elif number == _GRAPH_INITIALIZER:
                valued.add(self._find_text(found, _TENSOR_NAME))
            elif number == _GRAPH_SPARSE:
                valued.add(self._find_text(self._find(found, _SPARSE_VALUES), _TENSOR_NAME))
        asked = {spec.name: spec for spec in inputs if spec.name in valued}
        if not asked.keys() >= set(optional):
            raise UndeclaredError("an optional input has no value")
        needed = [spec for spec in inputs if spec.name not in valued]
        return (*needed, *(asked[name] for name in optional)), tuple(outputs)

    def _list_graph_fields(self) -> Iterator[tuple[int, Span]]:
        for number, found in self._list_fields((0, len(self._content))):
            if number == _MODEL_GRAPH and isinstance(found, tuple):
                yield from ((inner, field) for inner, field in self._list_fields(found) if isinstance(field, tuple))

    def _list_fields(self, span: Span) -> Iterator[tuple[int, Span | int]]:
        """The number of each field of a message with its span, or the value of a varint; others are left out."""
        position, end = span
        while position < end:
            self._position = position
            number, wire_type = self._read_tag(end)
            found: Span | int | None = None
            if wire_type == 0:
                found = self._read_varint(end)
            elif wire_type == 2:
                length = self._read_length(end)
                found = (self._position, self._position + length)
                self._position += length
            else:
                self._skip(number, wire_type, end)
            # Whoever takes the field may walk elsewhere before the next.
            position = self._position
            if found is not None:
                yield number, found

    def _find(self, span: Span, wanted: int) -> Span:
        """The last field of that number, as protobuf has it; UndeclaredError without one."""
        found = [field for number, field in self._list_fields(span) if number == wanted and isinstance(field, tuple)]
        if not found:
            raise UndeclaredError(f"field {wanted} is missing")
        return found[-1]

    def _find_text(self, span: Span, wanted: int) -> str:
        begin, end = self._find(span, wanted)
        return self._content[begin:end].decode(errors="replace")

    def _read_value(self, span: Span) -> TensorSpec:
        """What a ValueInfoProto declares."""
        tensor = self._find(self._find(span, _VALUE_TYPE), _TYPE_TENSOR)
        elements = [found for number, found in self._list_fields(tensor) if number == _TENSOR_ELEMENT]
        if not elements or elements[-1] not in _DATATYPES:
            raise UndeclaredError("the element type is none of the protocol's")
        shape = self._find(tensor, _TENSOR_SHAPE)
        dims = [self._read_dim(found) for number, found in self._list_fields(shape) if number == _SHAPE_DIM]
        return TensorSpec(
            self._find_text(span, _VALUE_NAME),
            _DATATYPES[elements[-1]],
            tuple(size for size, _ in dims),
            tuple(name for _, name in dims),
        )

    def _read_dim(self, span: Span) -> tuple[int, str]:
        """A dimension's size, -1 for an open one, and its name."""
        size, name = -1, ""
        for number, found in self._list_fields(span):
            if number == _DIM_VALUE and isinstance(found, int):
                size, name = (found, "") if found < 1 << 63 else (-1, "")
            elif number == _DIM_PARAMETER and isinstance(found, tuple):
                size, name = -1, self._content[found[0] : found[1]].decode(errors="replace")
        return size, name
