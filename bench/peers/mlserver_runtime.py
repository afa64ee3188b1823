"""The perceptron as MLServer runs it; copied beside the model's settings, and imported there by MLServer alone."""

from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Perceptron(MLModel):
    """FP32 `input` [batch, 16] to FP32 `output` [batch, 4]."""

    async def load(self) -> bool:
        """Read the weights."""
        self._weights = dict(np.load(Path(__file__).with_name("weights.npz")))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        hidden = np.maximum(rows @ self._weights["w1"] + self._weights["b1"], 0)
        output = hidden @ self._weights["w2"] + self._weights["b2"]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", output)])
