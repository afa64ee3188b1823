"""Looks into an ONNX file, before ONNX Runtime opens it, for tensors whose data lies in another file.

A walk over the protobuf wire (the field numbers are those of onnx.proto) that steps over tensors' data without reading
it: a file of any size costs no memory, and a hostile one ends in OnnxFileError.
"""

import mmap
from pathlib import Path

# Message → field number → message of that field: the ways that lead to a TensorProto, and no others.
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)

# As deep as protobuf's own parser goes.
MAX_DEPTH = 100
# A large language model has some 10^5 fields outside tensors; the walk takes about 1 µs for each.
MAX_FIELDS = 10_000_000


class OnnxFileError(Exception):
    """The file is not ONNX, or refers to data outside itself."""


def check_self_contained(path: Path) -> None:
    """Make sure that every tensor of a model has its data in the file itself.

    Raises
    ------
    OnnxFileError
        A tensor names external data, the file cannot be read, or it is not the protobuf wire of a model.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            Walk(content).check_model()
    except ValueError:
        raise OnnxFileError("the file is empty") from None
    except OSError as error:
        raise OnnxFileError(f"the file cannot be read: {error.strerror}") from None


class Walk:
    """One walk through one file; `position` is the next byte to read."""

    def __init__(self, content: mmap.mmap):
        self._content = content
        self._position = 0
        self._fields_left = MAX_FIELDS

    def check_model(self) -> None:
        """Raise OnnxFileError for a tensor with data elsewhere."""
        # The messages that are open: what each is and where it ends.
        open_messages = [("model", len(self._content))]
        while open_messages:
            message, end = open_messages[-1]
            if self._position == end:
                open_messages.pop()
            elif message == "tensor":
                self._check_tensor(end)
            elif inner := self._step(message, end):
                if len(open_messages) == MAX_DEPTH:
                    raise OnnxFileError(f"messages are nested more than {MAX_DEPTH} deep")
                open_messages.append(inner)

    def _step(self, message: str, end: int) -> tuple[str, int] | None:
        """Read one field of a message; enter it when it can lead to a tensor, else pass over it."""
        number, wire_type = self._read_tag(end)
        inner = _WAYS[message].get(number)
        if inner is None or wire_type != _BYTES:
            self._skip(number, wire_type, end)
            return None
        length = self._read_length(end)
        return inner, self._position + length

    def _check_tensor(self, end: int) -> None:
        name, is_external = "", False
        while self._position < end:
            number, wire_type = self._read_tag(end)
            if number == _TENSOR_DATA_LOCATION and wire_type == _VARINT:
                is_external |= self._read_varint(end) != 0
            elif number == _TENSOR_NAME and wire_type == _BYTES:
                name = self._read_text(end)
            else:
                is_external |= number == _TENSOR_EXTERNAL_DATA
                self._skip(number, wire_type, end)
        if is_external:
            raise OnnxFileError(
                f"tensor {name!r} has its data in another file; expected all data within the model file"
            )

    def _read_tag(self, end: int) -> tuple[int, int]:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise OnnxFileError(f"the file has more than {MAX_FIELDS} fields")
        tag = self._read_varint(end)
        if not 8 <= tag < 1 << 32:
            raise self._broken("a field number out of range")
        return tag >> 3, tag & 7

    def _read_varint(self, end: int) -> int:
        value = 0
        for shift in range(0, 70, 7):
            if self._position >= end:
                raise self._broken("a number that is cut off")
            byte = self._content[self._position]
            self._position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self._broken("a number of more than 10 bytes")

    def _read_length(self, end: int) -> int:
        length = self._read_varint(end)
        if length > end - self._position:
            raise self._broken(f"a length of {length} where {end - self._position} bytes are left")
        return length

    def _read_text(self, end: int) -> str:
        length = self._read_length(end)
        text = self._content[self._position : self._position + min(length, 200)]
        self._position += length
        return text.decode(errors="replace")

    def _skip(self, number: int, wire_type: int, end: int) -> None:
        if wire_type == _VARINT:
            self._read_varint(end)
        elif wire_type == _BYTES:
            length = self._read_length(end)
            self._position += length
        elif wire_type in (_FIXED32, _FIXED64):
            self._position += 4 if wire_type == _FIXED32 else 8
            if self._position > end:
                raise self._broken("a fixed-size number that is cut off")
        elif wire_type == _GROUP:
            self._skip_group(number, end)
        else:
            raise self._broken(f"wire type {wire_type} where a field begins")

    def _skip_group(self, number: int, end: int) -> None:
        """Pass over a group, with the groups inside it."""
        open_groups = [number]
        while open_groups:
            inner, wire_type = self._read_tag(end)
            if wire_type == _GROUP:
                open_groups.append(inner)
            elif wire_type != _GROUP_END:
                self._skip(inner, wire_type, end)
            elif open_groups.pop() != inner:
                raise self._broken("the end of a group that was not begun")
            if len(open_groups) > MAX_DEPTH:
                raise OnnxFileError(f"groups are nested more than {MAX_DEPTH} deep")

    def _broken(self, what: str) -> OnnxFileError:
        return OnnxFileError(f"the file is not ONNX or is cut off: {what} at byte {self._position}")
