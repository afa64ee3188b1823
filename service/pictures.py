"""Turns a picture file into the numbers that a model of pictures takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BYTE_RANGE = (0.0, 255.0)


class PictureError(ValueError):
    """A picture that cannot be read, or a shape that is not one of pictures; the text says which."""


@dataclass(frozen=True)
class Layout:
    """How pixels lie in a tensor: "flat", "hw", "chw" or "hwc"; one channel is grey, three are red, green and blue."""

    order: str
    height: int
    width: int
    channels: int = 1


def read_picture(path: Path, dims: Sequence[int], values: tuple[float, float]) -> np.ndarray:
    """The picture in the size, order and colours that the dimensions of one row ask for.

    Parameters
    ----------
    dims
        Without the batch; -1 takes the picture's own size.
    values
        What black and white become.

    Raises
    ------
    PictureError
        The file is no picture, the dimensions are not those of one, or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise PictureError("reading a picture needs Pillow: pip install pillow") from None
    try:
        with Image.open(path) as picture:
            layout = find_layout(dims, picture.height, picture.width)
            converted = picture.convert("RGB" if layout.channels == 3 else "L")
    except OSError as error:
        raise PictureError(f"picture {path}: {error.strerror or error}") from None
    size = (layout.width, layout.height)
    if converted.size != size:
        converted = converted.resize(size)
    pixels = np.asarray(converted, np.float64).reshape(layout.height, layout.width, layout.channels)
    low, high = values
    return _arrange(low + pixels * ((high - low) / BYTE_RANGE[1]), layout.order)


def find_layout(dims: Sequence[int], height: int, width: int) -> Layout:
    """The layout that dimensions stand for, for a picture of this size; PictureError when they stand for none."""
    match tuple(dims):
        case (pixels,) if pixels > 0 and math.isqrt(pixels) ** 2 == pixels:
            return Layout("flat", math.isqrt(pixels), math.isqrt(pixels))
        case (rows, columns):
            return Layout("hw", _choose(rows, height), _choose(columns, width))
        case (1 | 3 as channels, rows, columns):
            return Layout("chw", _choose(rows, height), _choose(columns, width), channels)
        case (rows, columns, 1 | 3 as channels):
            return Layout("hwc", _choose(rows, height), _choose(columns, width), channels)
    raise PictureError(
        "expected an input of one square number, height and width, or these with 1 or 3 channels before or after "
        f"them, given {list(dims)}"
    )


def _choose(declared: int, own: int) -> int:
    return declared if declared > 0 else own


def _arrange(pixels: np.ndarray, order: str) -> np.ndarray:
    """From [height, width, channels] to the order asked for."""
    match order:
        case "flat":
            return pixels.reshape(-1)
        case "hw":
            return pixels[:, :, 0]
        case "chw":
            return pixels.transpose(2, 0, 1)
    return pixels
