"""The model of pictures, and one of them."""

import numpy as np
import onnx

from bench.effort import Effort
from bench.gpu import models


def make_pictures(dtype: object, effort: Effort) -> tuple[onnx.ModelProto, np.ndarray]:
    """ResNet-50, or a small network of its kind, and a row of its input."""
    options = effort.pick({"size": 224}, {"blocks": (1, 1, 1, 1), "width": 8, "size": 32})
    pixels = np.random.default_rng(models.SEED).integers(0, 256, (1, 3, options["size"], options["size"]))
    return models.resnet(dtype, **options), pixels.astype(np.uint8)
