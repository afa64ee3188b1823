"""NumPy arrays ⇄ the raw tensor contents of the protocol, on a client's side."""

import math
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from kernels.datatype import DATATYPES

# Little-endian, as the protocol has it. BF16 has no NumPy dtype: it is read into, and written from, float32.
DTYPES = {row.name: np.dtype(row.dtype).newbyteorder("<") for row in DATATYPES} | {"BF16": np.dtype("<f4")}
_NAMES = {np.dtype(row.dtype): row.name for row in DATATYPES if row.name != "BF16"}
_LENGTH = struct.Struct("<I")


class TensorError(ValueError):
    """An array that no tensor can carry, or contents that are not the tensor they claim to be; the text says why."""


def find_datatype(array: np.ndarray) -> str:
    """The wire name of an array's datatype; text and bytes of any length are BYTES."""
    if array.dtype.kind in "SU":
        return "BYTES"
    name = _NAMES.get(array.dtype.newbyteorder("="))
    if name is None:
        raise TensorError(f"dtype {array.dtype}: expected one of {', '.join(map(str, _NAMES))}, text or bytes")
    return name


def encode_array(array: np.ndarray, datatype: str) -> bytes:
    """The elements of an array, row-major and without gaps; floats become BF16 by rounding to the nearest.

    Raises
    ------
    TensorError
        The array's dtype is not the one of the datatype, or an element of BYTES is neither text nor bytes.
    """
    if datatype == "BYTES":
        return b"".join(_encode_elements(array.ravel().tolist()))
    if datatype not in DTYPES or array.dtype.newbyteorder("<") != DTYPES[datatype]:
        raise TensorError(f"datatype {datatype}: expected {DTYPES.get(datatype, 'a known one')}, given {array.dtype}")
    packed = np.ascontiguousarray(array, DTYPES[datatype])
    return (_round_to_bf16(packed) if datatype == "BF16" else packed).tobytes()


def decode_array(content: bytes, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """The array of raw contents; BYTES becomes an array of bytes objects, BF16 one of float32.

    Raises
    ------
    TensorError
        The datatype is unknown, or the contents are shorter or longer than the shape says.
    """
    if datatype not in DTYPES:
        raise TensorError(f"datatype {datatype!r}: expected one of {', '.join(DTYPES)}")
    if datatype == "BYTES":
        return _decode_elements(content, shape)
    dtype = np.dtype("<u2") if datatype == "BF16" else DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise TensorError(f"{datatype} tensor of shape {list(shape)}: expected {expected} bytes, given {len(content)}")
    array = np.frombuffer(content, dtype).reshape(shape)
    return (array.astype("<u4") << 16).view("<f4") if datatype == "BF16" else array


def _encode_elements(elements: Iterable[object]) -> Iterable[bytes]:
    for element in elements:
        content = element.encode() if isinstance(element, str) else element
        if not isinstance(content, bytes):
            raise TensorError(f"element of BYTES: expected text or bytes, given {type(element).__name__}")
        yield _LENGTH.pack(len(content)) + content


def _decode_elements(content: bytes, shape: Sequence[int]) -> np.ndarray:
    elements, position = [], 0
    while position + _LENGTH.size <= len(content):
        start = position + _LENGTH.size
        position = start + _LENGTH.unpack_from(content, position)[0]
        elements.append(content[start:position])
    if position != len(content) or len(elements) != math.prod(shape):
        raise TensorError(
            f"BYTES tensor of shape {list(shape)}: expected {math.prod(shape)} elements in {position} bytes, "
            f"given {len(elements)} in {len(content)}"
        )
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _round_to_bf16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 bits, rounded to nearest even; NaN stays NaN whatever its lower half."""
    bits = array.view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2")
