"""One held-out digit in the forms that the commands to paste take."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.demo.digits import MAX_LEVEL, SIDE, Scans, missing_extra


@dataclass(frozen=True)
class Sample:
    """One scan, what it shows, and where it lies as an array, FP32 [1, 64], and as a picture, white on black."""

    image: np.ndarray
    label: int
    array_file: Path
    picture_file: Path


def write_sample(scans: Scans, folder: Path, index: int = 0) -> Sample:
    """Write one scan's files; DemoError when Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra(error) from None
    folder.mkdir(parents=True, exist_ok=True)
    sample = Sample(scans.images[index][None], int(scans.labels[index]), folder / "digit.npy", folder / "digit.png")
    np.save(sample.array_file, sample.image)
    levels = np.rint(sample.image.reshape(SIDE, SIDE) * (255 / MAX_LEVEL)).astype(np.uint8)
    Image.fromarray(levels).save(sample.picture_file)
    return sample
