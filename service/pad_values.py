"""The values that pad inputs: from how they are written to the bytes of one element."""

import numpy as np

from kernels.datatype import DATATYPES
from service.config_text import ModelConfigError
from service.uneven_config import PAD_PARAMETER, parameter_error

DTYPES = {row.name: row.dtype for row in DATATYPES}
TRUTH_VALUES = {"0": b"\0", "false": b"\0", "1": b"\1", "true": b"\1"}


def encode_element(name: str, datatype: str, text: str) -> bytes:
    """One element as requests carry it.

    Raises
    ------
    ModelConfigError
        The text is no value of the datatype.
    """
    try:
        if datatype == "BOOL":
            return TRUTH_VALUES[text]
        if datatype.startswith(("INT", "UINT")):
            return np.array([int(text)], DTYPES[datatype]).tobytes()
        return _encode_float(datatype, float(text))
    except (KeyError, ValueError, OverflowError):
        raise _refuse(name, datatype, text) from None


def _encode_float(datatype: str, value: float) -> bytes:
    with np.errstate(over="ignore"):
        if datatype != "BF16":
            made = np.array([value], DTYPES[datatype])
            encoded = made.tobytes()
        else:
            # The upper half of an FP32, rounded to the nearest.
            bits = np.array([value], np.float32).view(np.uint32)
            rounded = bits if np.isnan(value) else bits + 0x7FFF + (bits >> 16 & 1)
            made = (rounded & 0xFFFF0000).view(np.float32)
            encoded = (rounded >> 16).astype(np.uint16).tobytes()
    if np.isinf(made[0]) and not np.isinf(value):
        raise ValueError
    return encoded


def _refuse(name: str, datatype: str, text: str) -> ModelConfigError:
    return parameter_error(PAD_PARAMETER, f"expected a value of {datatype} for input {name!r}, given {text!r}")
