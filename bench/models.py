"""The models and messages that are measured: those of the tests, with fixed seeds."""

from pathlib import Path

import numpy as np

from service.client import build_request
from tests import onnx_models

SEED = 20240601
TINY_COLUMNS = 16
# 91 bytes on the wire: what a small request is.
TINY_MODEL = "tiny"


def save_tiny(repository: Path) -> Path:
    """Put the small perceptron (16-64-4) into a repository; returns its file."""
    return onnx_models.save(onnx_models.tiny(), repository, TINY_MODEL)


def encode_rows(model: str, shape: tuple[int, ...]) -> bytes:
    """A request for `input` with random rows, on the wire."""
    rows = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    return build_request(model, {"input": rows}).SerializeToString()


def encode_tiny(rows: int = 1) -> bytes:
    """A request to the small perceptron."""
    return encode_rows(TINY_MODEL, (rows, TINY_COLUMNS))
