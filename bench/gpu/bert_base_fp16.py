"""An encoder of BERT-base's size, FP16, for texts of 128 words: much to compute for few bytes."""

import numpy as np

from bench.effort import Effort
from bench.gpu import models
from bench.gpu.case import Case, measure_case
from bench.rows import Row


def measure(effort: Effort) -> list[Row]:
    """The rows of the model."""
    small = {"layers": 1, "hidden": 32, "heads": 2, "length": 16, "vocabulary": 100}
    options = effort.pick({"length": 128, "vocabulary": 30522}, small)
    words = np.random.default_rng(models.SEED).integers(0, options["vocabulary"], (1, options["length"]))
    model = models.encoder(np.float16, **options)
    return measure_case(Case("bert_base_fp16", model, words.astype(np.int32), server_goal=0.90), effort)
