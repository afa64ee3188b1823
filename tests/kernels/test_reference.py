"""kernels.reference: the batch-assembly twins that other tests lean on."""

import numpy as np
import pytest

from kernels import reference


@pytest.mark.parametrize("counts", [[1], [2, 1, 4], [0, 3, 0], [0]], ids=str)
def test_scatter_undoes_gather(counts):
    """Every caller gets its own rows back."""
    parts = [np.full((count, 3), place, dtype=np.float32) for place, count in enumerate(counts)]
    batch = reference.gather_rows(parts)
    assert batch.shape == (sum(counts), 3)
    for part, rows in zip(parts, reference.scatter_rows(batch, counts), strict=True):
        np.testing.assert_array_equal(rows, part)


def test_scatter_of_other_rows_than_gathered_is_refused():
    """Counts that do not add up to the batch are a mistake."""
    with pytest.raises(ValueError, match="4 rows asked for, 3 in the batch"):
        reference.scatter_rows(np.zeros((3, 2)), [1, 3])


@pytest.mark.parametrize("datatype", sorted(reference.DTYPES))
@pytest.mark.parametrize("shape", [(0, 2), (1,), (3, 2), ()], ids=str)
def test_array_and_content_turn_into_each_other(datatype, shape):
    """Raw content survives the way through NumPy, for every datatype."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        content = reference.join_strings([b"x" * (place % 3) for place in range(count)])
    else:
        content = bytes(place % 2 for place in range(count * reference.DTYPES[datatype].itemsize))
    array = reference.to_array(content, datatype, shape)
    assert array.shape == shape
    assert reference.to_content(array, datatype) == content


@pytest.mark.parametrize("content", [b"\x01", b"\x02\0\0\0a", b"\x01\0\0\0a\0\0\0", b"\xff\xff\xff\xff"])
def test_strings_with_bad_lengths_are_refused(content):
    """A length that is cut off, or that leads past the end, is an error."""
    with pytest.raises(ValueError, match="cut off"):
        reference.split_strings(content)
