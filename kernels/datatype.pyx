"""The table behind kernels.datatype."""

from collections import namedtuple

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

Datatype = namedtuple("Datatype", "code name onnx_type size dtype")
Datatype.__doc__ = """One row: code, wire name, ONNX element type, bytes per element (0: varies), NumPy dtype name.

NumPy has no BF16; its row names the dtype of its bits.
"""

cdef struct datatype_row:
    const char* name
    const char* dtype
    uint64_t word   # the name's bytes, zero-filled: compared as one number
    size_t length   # of the name
    int onnx_type   # ONNX Runtime's ONNXTensorElementDataType
    size_t size

cdef datatype_row[DATATYPE_COUNT] ROWS


cdef object _fill_row(int datatype, const char* name, int onnx_type, size_t size, const char* dtype):
    cdef bytes encoded = name
    ROWS[datatype].name = name
    ROWS[datatype].dtype = dtype
    ROWS[datatype].word = int.from_bytes(encoded, "little")
    ROWS[datatype].length = len(encoded)
    ROWS[datatype].onnx_type = onnx_type
    ROWS[datatype].size = size
    return Datatype(datatype, encoded.decode(), onnx_type, size, dtype.decode())


DATATYPES = (
    _fill_row(DT_BOOL, "BOOL", 9, 1, "bool"),
    _fill_row(DT_UINT8, "UINT8", 2, 1, "uint8"),
    _fill_row(DT_UINT16, "UINT16", 4, 2, "uint16"),
    _fill_row(DT_UINT32, "UINT32", 12, 4, "uint32"),
    _fill_row(DT_UINT64, "UINT64", 13, 8, "uint64"),
    _fill_row(DT_INT8, "INT8", 3, 1, "int8"),
    _fill_row(DT_INT16, "INT16", 5, 2, "int16"),
    _fill_row(DT_INT32, "INT32", 6, 4, "int32"),
    _fill_row(DT_INT64, "INT64", 7, 8, "int64"),
    _fill_row(DT_FP16, "FP16", 10, 2, "float16"),
    _fill_row(DT_FP32, "FP32", 1, 4, "float32"),
    _fill_row(DT_FP64, "FP64", 11, 8, "float64"),
    _fill_row(DT_BYTES, "BYTES", 8, 0, "object"),
    _fill_row(DT_BF16, "BF16", 16, 2, "uint16"),
)
_fill_row(DT_UNKNOWN, "", 0, 0, "")


cdef int find_datatype(const uint8_t* name, size_t size) noexcept nogil:
    """Return the code of a wire name, DT_UNKNOWN for any other."""
    cdef uint64_t word = 0
    cdef int datatype
    if size == 0 or size > sizeof(word):
        return DT_UNKNOWN
    memcpy(&word, name, size)
    for datatype in range(1, DATATYPE_COUNT):
        if word == ROWS[datatype].word and size == ROWS[datatype].length:
            return datatype
    return DT_UNKNOWN


cdef const char* datatype_name(int datatype) noexcept nogil:
    """Return the wire name of a code, empty for DT_UNKNOWN."""
    return ROWS[datatype].name


cdef size_t datatype_size(int datatype) noexcept nogil:
    """Return the bytes of one element, 0 where they vary (BYTES) or nothing is known."""
    return ROWS[datatype].size


cdef int datatype_to_onnx(int datatype) noexcept nogil:
    """Return the ONNX element type of a code, 0 (undefined) for DT_UNKNOWN."""
    return ROWS[datatype].onnx_type


cdef int datatype_from_onnx(int onnx_type) noexcept nogil:
    """Return the code of an ONNX element type, DT_UNKNOWN for one that the protocol cannot carry."""
    cdef int datatype
    for datatype in range(1, DATATYPE_COUNT):
        if ROWS[datatype].onnx_type == onnx_type:
            return datatype
    return DT_UNKNOWN


def name_to_onnx(bytes name not None):
    """Return the ONNX element type of a wire name, 0 for one that is no datatype."""
    return datatype_to_onnx(find_datatype(name, len(name)))


def onnx_to_name(int onnx_type):
    """Return the wire name of an ONNX element type, empty for one that the protocol cannot carry."""
    return datatype_name(datatype_from_onnx(onnx_type)).decode()
