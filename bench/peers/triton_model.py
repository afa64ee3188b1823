"""The perceptron as Triton's Python backend runs it: one run for all requests of a batch; imported there alone."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    """FP32 `input` [batch, 16] to FP32 `output` [batch, 4]."""

    def initialize(self, args):
        """Read the weights."""
        self._weights = dict(np.load(Path(__file__).with_name("weights.npz")))

    def execute(self, requests):
        """Answer a batch of requests."""
        inputs = [backend.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        hidden = np.maximum(np.concatenate(inputs) @ self._weights["w1"] + self._weights["b1"], 0)
        output = hidden @ self._weights["w2"] + self._weights["b2"]
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return [backend.InferenceResponse([backend.Tensor("output", rows)]) for rows in np.split(output, ends)]
