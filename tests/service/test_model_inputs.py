"""Files and texts become arrays that fit a model's inputs, or a message that names what does not."""

import json

import numpy as np
import pytest
from PIL import Image

from service.model_inputs import Declared, InputError, read_inputs

PAIR = (Declared("a", "FP32", (-1, 3)), Declared("b", "INT64", (-1, 3)))
SINGLE = (Declared("input", "FP32", (-1, 4)),)


def declare(datatype, shape=(-1, 2)):
    """A model of one input."""
    return (Declared("input", datatype, shape),)


def test_read_inputs_takes_arrays_and_json_by_name(tmp_path):
    """A file or JSON as it is; the batch is added where only that is missing."""
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3]], np.float32))
    arrays = read_inputs(PAIR, [f"a=@{tmp_path}/a.npy", "b=[4, 5, 6]"])
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "a": ("float32", [[1, 2, 3]]),
        "b": ("int64", [[4, 5, 6]]),
    }


@pytest.mark.parametrize("prefix", ["", "input="])
def test_read_inputs_needs_no_name_for_a_model_of_one_input(tmp_path, prefix):
    """Nor for JSON that holds an equals sign."""
    (tmp_path / "x.json").write_text(json.dumps([[1, 2, 3, 4]] * 2))
    assert read_inputs(SINGLE, [f"{prefix}@{tmp_path}/x.json"])["input"].shape == (2, 4)
    assert read_inputs(declare("BYTES"), [f'{prefix}["a=b", "c"]'])["input"].tolist() == [["a=b", "c"]]


def test_read_inputs_takes_an_archive_of_arrays(tmp_path):
    """One array for each input, by name."""
    np.savez(tmp_path / "both.npz", a=np.ones((2, 3), np.float32), b=np.zeros((2, 3), np.int64))
    arrays = read_inputs(PAIR, npz=tmp_path / "both.npz")
    assert {name: array.shape for name, array in arrays.items()} == {"a": (2, 3), "b": (2, 3)}


@pytest.mark.parametrize(
    ("datatype", "values", "white"), [("FP32", None, 1), ("UINT8", None, 255), ("FP32", (0.0, 16.0), 16)]
)
def test_read_inputs_takes_a_picture(tmp_path, datatype, values, white):
    """From 0 to 1 for floats and as bytes for whole numbers, if nothing else is said."""
    Image.new("L", (2, 2), 255).save(tmp_path / "white.png")
    array = read_inputs(declare(datatype, (-1, 4)), image=tmp_path / "white.png", image_range=values)["input"]
    assert (array.shape, array.tolist()) == ((1, 4), [[white] * 4])


@pytest.mark.parametrize(
    ("datatype", "text", "expected"),
    [
        ("FP16", "[1, 2.5]", [[1, 2.5]]),
        ("BF16", "[1, 2.5]", [[1, 2.5]]),
        ("INT8", "[-128, 127.0]", [[-128, 127]]),
        ("BOOL", "[true, false]", [[True, False]]),
        ("BYTES", '["a", "é"]', [["a", "é"]]),
    ],
)
def test_read_inputs_converts_values_that_fit(datatype, text, expected):
    """JSON knows fewer types than the protocol."""
    assert read_inputs(declare(datatype), [text])["input"].tolist() == expected


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("INT8", "[1, 128]"),
        ("INT64", "[1.5, 2]"),
        ("UINT8", "[-1, 2]"),
        ("BOOL", "[0, 1]"),
        ("FP32", "[true, false]"),
        ("FP32", '["1", "2"]'),
        ("BYTES", "[1, 2]"),
        ("FP32", "[null, 1]"),
        ("FP32", '{"a": 1}'),
    ],
)
def test_read_inputs_refuses_values_that_do_not_fit(datatype, text):
    """Nothing is wrapped, cut or guessed in silence."""
    with pytest.raises(InputError, match=f"input 'input': expected values of {datatype}, given"):
        read_inputs(declare(datatype), [text])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["c=[1]"], "input 'c': expected one of a, b"),
        (["a=[1, 2, 3]"], "input 'b': expected a value of INT64"),
        (["a=[1]", "a=[2]"], "input 'a': expected once, given twice"),
        (["[1]"], "expected NAME=VALUE with a name of a, b"),
        (["a=1,2"], "input 'a': is not JSON"),
        (["a=[[1], [2, 3]]", "b=[1, 2, 3]"], "input 'a': expected lists of equal lengths"),
        (["a=@values.txt"], r"ends in \.npy or \.json, given values\.txt"),
        (["a=@absent.npy"], r"absent\.npy: No such file"),
        (["a=@absent.json"], r"absent\.json: No such file"),
    ],
)
def test_read_inputs_names_what_is_wrong(texts, message):
    """The text has the input or the file, and what was expected."""
    with pytest.raises(InputError, match=message):
        read_inputs(PAIR, texts)


def test_read_inputs_refuses_files_that_are_not_what_they_claim(tmp_path):
    """An archive that is one array, a broken one, pickled objects, a picture too many."""
    np.save(tmp_path / "one.npz.npy", np.zeros(3))
    (tmp_path / "one.npz.npy").rename(tmp_path / "one.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04broken")
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    for name, message in (("one.npz", "expected an .npz file"), ("broken.npz", "broken.npz: ")):
        with pytest.raises(InputError, match=message):
            read_inputs(PAIR, npz=tmp_path / name)
    with pytest.raises(InputError, match=r"objects\.npy: .*pickle"):
        read_inputs(SINGLE, [f"@{tmp_path}/objects.npy"])
    with pytest.raises(InputError, match="expected one input without a value, given a, b"):
        read_inputs(PAIR, image=tmp_path / "x.png")
    Image.new("L", (2, 2)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="input 'input': expected an input of one square number"):
        read_inputs(declare("FP32", (-1, 5)), image=tmp_path / "x.png")
