"""The handwritten digits that scikit-learn brings along: 1,797 scans of 8×8 pixels, split once and for all."""

from dataclasses import dataclass

import numpy as np

SIDE = 8
# Grey levels run from 0, paper, to this, ink.
MAX_LEVEL = 16
TEST_SIZE = 450
SPLIT_SEED = 20


class DemoError(Exception):
    """The demonstration cannot go on; the text says why and, where it can, what to do."""


@dataclass(frozen=True)
class Scans:
    """Scans, FP32 [n, 64] with levels from 0 to 16, and the digits that they show, INT64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Digits:
    """The split: no model ever sees the held-out part while it learns."""

    training: Scans
    held_out: Scans


def load_digits() -> Digits:
    """Read and split the scans, the same way every time and with every digit's share kept in both parts.

    Raises
    ------
    DemoError
        scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra(error) from None
    images, labels = datasets.load_digits(return_X_y=True)
    parts = train_test_split(
        images.astype(np.float32),
        labels.astype(np.int64),
        test_size=TEST_SIZE,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    return Digits(Scans(parts[0], parts[2]), Scans(parts[1], parts[3]))


def missing_extra(error: ImportError) -> DemoError:
    """What to tell a user who lacks a package of the extra `demo`."""
    return DemoError(f"the demonstration needs {error.name}: pip install 'sluice-serving[cpu,demo]'")
