"""ResNet-50 of FP32: UINT8 pictures, whose bytes are many for what is computed of each."""

import numpy as np

from bench.effort import Effort
from bench.gpu.case import Case, measure_case
from bench.gpu.pictures import make_pictures
from bench.rows import Row


def measure(effort: Effort) -> list[Row]:
    """The rows of the model."""
    model, picture = make_pictures(np.float32, effort)
    return measure_case(Case("resnet50_fp32", model, picture, server_goal=0.85), effort)
