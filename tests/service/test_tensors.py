"""Arrays to raw contents and back, against NumPy and against what the datatypes' bytes are by definition."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.tensors import DTYPES, TensorError, decode_array, encode_array, find_datatype

NUMBERS = sorted(set(DTYPES) - {"BYTES", "BF16"})


@pytest.mark.parametrize("datatype", NUMBERS)
@given(data=st.data())
def test_numbers_there_and_back_are_the_same_bits(datatype, data):
    """Every array of numbers survives, whatever its shape and byte order."""
    array = data.draw(arrays.arrays(DTYPES[datatype].newbyteorder("="), arrays.array_shapes(min_dims=0, min_side=0)))
    assert find_datatype(array) == datatype
    for given_array in (array, array.astype(array.dtype.newbyteorder(">")), np.asfortranarray(array)):
        content = encode_array(given_array, datatype)
        assert content == array.tobytes()
    assert decode_array(content, datatype, array.shape).tobytes() == content


@given(array=arrays.arrays(np.float32, arrays.array_shapes()))
def test_bf16_rounds_as_ml_dtypes_does(array):
    """Rounding to nearest even, with NaN and infinities, is that of the reference implementation."""
    with np.errstate(over="ignore"):
        expected = array.astype(ml_dtypes.bfloat16)
    decoded = decode_array(encode_array(array, "BF16"), "BF16", array.shape)
    np.testing.assert_array_equal(decoded, expected.astype(np.float32))


@given(elements=st.lists(st.one_of(st.binary(), st.text())))
def test_bytes_there_and_back_keep_every_element(elements):
    """Text travels as UTF-8; embedded and trailing zeros stay."""
    array = np.empty(len(elements), object)
    array[:] = elements
    decoded = decode_array(encode_array(array, "BYTES"), "BYTES", array.shape)
    assert decoded.tolist() == [item.encode() if isinstance(item, str) else item for item in elements]


def test_bytes_have_a_length_before_each_element():
    """The form on the wire: four bytes of length, little-endian, then the element."""
    assert encode_array(np.array([["a", "é"]]), "BYTES") == b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"
    assert find_datatype(np.array(["a"])) == find_datatype(np.array([b"a"])) == "BYTES"


@pytest.mark.parametrize(
    ("content", "datatype", "shape", "text"),
    [
        (b"\0" * 7, "FP32", [2], "expected 8 bytes, given 7"),
        (b"\0" * 3, "BF16", [1], "expected 2 bytes, given 3"),
        (b"\x01\0\0\0", "BYTES", [1], "given 1 in 4"),
        (b"\x01\0\0\0a\0", "BYTES", [1], "given 1 in 6"),
        (b"\x01\0\0\0a", "BYTES", [2], "expected 2 elements"),
        (b"", "FP31", [0], "'FP31'"),
    ],
)
def test_contents_that_do_not_fit_are_refused_with_both_sizes(content, datatype, shape, text):
    """The text names what was expected and what was given."""
    with pytest.raises(TensorError, match=text):
        decode_array(content, datatype, shape)


def test_arrays_that_no_tensor_can_carry_are_refused():
    """A dtype without a datatype, a datatype that is not the array's, an element that is no text."""
    with pytest.raises(TensorError, match="complex128"):
        find_datatype(np.zeros(1, complex))
    with pytest.raises(TensorError, match="FP32: expected float32, given float64"):
        encode_array(np.zeros(1), "FP32")
    with pytest.raises(TensorError, match="given int"):
        encode_array(np.array([1], object), "BYTES")
