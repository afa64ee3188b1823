"""kernels.datatype: one table that agrees with the contract, with ONNX and with NumPy."""

import numpy as np
import onnx
import pytest

from kernels.datatype import DATATYPES, name_to_onnx, onnx_to_name
from service.pb.model_config_pb2 import DataType

PROTO_NAMES = {"BYTES": "TYPE_STRING"}
ONNX_NAMES = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16", "BYTES": "STRING"}


def test_datatypes_cover_every_number_of_the_contract():
    """The codes are exactly those of inference.DataType, without TYPE_INVALID."""
    assert {row.code for row in DATATYPES} == set(DataType.values()) - {DataType.TYPE_INVALID}


@pytest.mark.parametrize("row", DATATYPES, ids=lambda row: row.name)
def test_datatype_agrees_with_contract_onnx_and_numpy(row):
    """Each row's numbers are those that the three others use."""
    assert row.code == DataType.Value(PROTO_NAMES.get(row.name, f"TYPE_{row.name}"))
    assert row.onnx_type == onnx.TensorProto.DataType.Value(ONNX_NAMES.get(row.name, row.name))
    assert row.size == (0 if row.name == "BYTES" else np.dtype(row.dtype).itemsize)


@pytest.mark.parametrize("row", DATATYPES, ids=lambda row: row.name)
def test_datatype_name_and_onnx_type_map_to_each_other(row):
    """Looking a name or an ONNX element type up finds the row."""
    assert name_to_onnx(row.name.encode()) == row.onnx_type
    assert onnx_to_name(row.onnx_type) == row.name


@pytest.mark.parametrize(
    "name", [b"", b"fp32", b"FP32 ", b"FP32\0", b"\0FP32", b"FP3", b"UINT128", b"COMPLEX64", b"FP32FP32", b"x" * 100]
)
def test_datatype_name_that_is_none_is_unknown(name):
    """Only the exact names are datatypes, a NUL behind one included."""
    assert name_to_onnx(name) == 0


@pytest.mark.parametrize("onnx_type", [-1, 0, 14, 15, 17, 23, 1000])
def test_onnx_type_that_the_protocol_cannot_carry_has_no_name(onnx_type):
    """Undefined, complex and 8-bit float types have no datatype."""
    assert onnx_to_name(onnx_type) == ""
