"""The datatypes of tensors as a ModelConfig has them."""

from service.pb.model_config_pb2 import DataType

# By their names on the wire.
CONFIG_DATATYPES = {
    "BOOL": DataType.TYPE_BOOL,
    "INT8": DataType.TYPE_INT8,
    "INT16": DataType.TYPE_INT16,
    "INT32": DataType.TYPE_INT32,
    "INT64": DataType.TYPE_INT64,
    "UINT8": DataType.TYPE_UINT8,
    "UINT16": DataType.TYPE_UINT16,
    "UINT32": DataType.TYPE_UINT32,
    "UINT64": DataType.TYPE_UINT64,
    "FP16": DataType.TYPE_FP16,
    "BF16": DataType.TYPE_BF16,
    "FP32": DataType.TYPE_FP32,
    "FP64": DataType.TYPE_FP64,
    "BYTES": DataType.TYPE_STRING,
}


def name_datatype(value: int) -> str:
    """The name that config.pbtxt has for a datatype, or its number where there is none."""
    return DataType.Name(value) if value in DataType.values() else str(value)
