"""Reads what a user has, .npy, .npz, JSON or a picture, into arrays that fit a model's declared inputs."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.pictures import BYTE_RANGE, PictureError, read_picture
from service.tensors import DTYPES

# By the ending of a file's name.
SUFFIXES = (".npy", ".json")
UNIT_RANGE = (0.0, 1.0)


class InputError(ValueError):
    """An input that cannot be used; the text names it, and what was expected and given."""


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it; -1 in the shape stands for any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def read_inputs(
    declared: Sequence[Declared],
    texts: Sequence[str] = (),
    npz: Path | None = None,
    image: Path | None = None,
    image_range: tuple[float, float] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays for a model's inputs, in the datatypes and with the number of dimensions that it declares.

    Parameters
    ----------
    texts
        NAME=@FILE.npy, NAME=@FILE.json or NAME=JSON; without NAME= where the model has one input.
    npz
        File with an array for each input, by name.
    image
        Picture for the one input that nothing else is given for.
    image_range
        What black and white become; None is 0 to 255 for whole numbers, 0 to 1 for others.

    Raises
    ------
    InputError
        An input is unknown, missing or given twice, a file cannot be read, or values do not fit the datatype.
    """
    known = {one.name: one for one in declared}
    given: dict[str, object] = {}
    for name, value in [*(read_text(text, list(known)) for text in texts), *(read_npz(npz).items() if npz else ())]:
        if name not in known:
            raise InputError(f"input {name!r}: expected one of {', '.join(known)}")
        if name in given:
            raise InputError(f"input {name!r}: expected once, given twice")
        given[name] = value
    missing = [name for name in known if name not in given]
    if image is not None:
        if len(missing) != 1:
            raise InputError(
                f"picture {image}: expected one input without a value, given {', '.join(missing) or 'none'}"
            )
        wanted = known[missing.pop()]
        given[wanted.name] = _read_picture(image, wanted, image_range)
    if missing:
        raise InputError(f"input {missing[0]!r}: expected a value of {_describe(known[missing[0]])}, given none")
    return {name: fit_array(known[name], value) for name, value in given.items()}


def read_text(text: str, names: Sequence[str]) -> tuple[str, object]:
    """The name and the value that `--input` gives; an array from .npy, nested lists from JSON."""
    name, equals, value = text.partition("=")
    if not equals or name.lstrip()[:1] in ("@", "[", '"'):
        if len(names) != 1:
            raise InputError(f"input {text!r}: expected NAME=VALUE with a name of {', '.join(names)}")
        name, value = names[0], text
    if not value.startswith("@"):
        return name, _parse_json(value, f"input {name!r}")
    path = Path(value[1:])
    if path.suffix not in SUFFIXES:
        raise InputError(f"input {name!r}: expected a file that ends in {' or '.join(SUFFIXES)}, given {path}")
    if path.suffix == ".npy":
        return name, _load(path)
    try:
        return name, _parse_json(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {_explain(error)}") from None


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an .npz file by name."""
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        raise InputError(f"{path}: expected an .npz file, given a single array; use --input NAME=@FILE.npy")
    return arrays


def _read_picture(path: Path, declared: Declared, values: tuple[float, float] | None) -> np.ndarray:
    is_whole = DTYPES[declared.datatype].kind in "iu"
    dims = declared.shape[1:] if declared.shape[:1] == (-1,) else declared.shape
    try:
        pixels = read_picture(path, dims, values or (BYTE_RANGE if is_whole else UNIT_RANGE))
    except PictureError as error:
        raise InputError(f"input {declared.name!r}: {error}") from None
    return np.rint(pixels) if is_whole else pixels


def fit_array(declared: Declared, value: object) -> np.ndarray:
    """The value in the declared datatype; one that lacks only the batch dimension becomes a batch of one.

    Whether its shape fits otherwise is left to the server, which says what it expected.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"input {declared.name!r}: expected lists of equal lengths") from None
    array = _convert(declared, array)
    lacks_batch = declared.shape[:1] == (-1,) and array.ndim == len(declared.shape) - 1
    return array[None] if lacks_batch else array


def _convert(declared: Declared, array: np.ndarray) -> np.ndarray:
    """Floats may be rounded; whole numbers and truth values must stay what they are."""
    target = DTYPES[declared.datatype]
    if array.size == 0:
        return array.astype(target)
    is_text = array.dtype.kind in "SUO"
    if is_text or declared.datatype == "BYTES":
        if is_text and declared.datatype == "BYTES":
            return array.astype(object)
        raise _misfit(declared, array)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "b") != (target.kind == "b"):
        raise _misfit(declared, array)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(target)
    if target.kind in "iu" and not np.array_equal(converted, array):
        raise _misfit(declared, array)
    return converted


def _misfit(declared: Declared, array: np.ndarray) -> InputError:
    sample = np.array2string(array.ravel()[:4], separator=", ")
    return InputError(
        f"input {declared.name!r}: expected values of {declared.datatype}, given {array.dtype} such as {sample}"
    )


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {_explain(error)}") from None


def _parse_json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: is not JSON: {error}") from None


def _explain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _describe(declared: Declared) -> str:
    return f"{declared.datatype} {list(declared.shape)}"
