"""Calls of an engine that its tests share: one request and its outputs, rows that say whose they are, refusals."""

import numpy as np
import pytest
from inference_messages import decode_reply, encode_request

from kernels.engine import InferError


def infer(engine, model, inputs, **options):
    """One request and its outputs."""
    version_hint = options.pop("version_hint", b"")
    return decode_reply(engine.infer(encode_request(model, inputs, **options), version_hint=version_hint))


def nonce_rows(index, rows, width=4):
    """Rows that no other index has."""
    return np.full((rows, width), index, np.float32) + np.arange(rows, dtype=np.float32)[:, None] / 1024


def refusal_of(engine, message, **options):
    """Code and text of a request that must fail."""
    with pytest.raises(InferError) as refusal:
        engine.infer(message, **options)
    return refusal.value.code, refusal.value.message
