"""Calls of an engine that its tests share: one request and its outputs, rows that say whose they are, refusals."""

import select

import numpy as np
import pytest
from inference_messages import decode_reply, encode_request

from kernels.completions import CompletionQueue
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


def submit_all(engine, requests):
    """Submit requests together and wait for all of them."""
    queue = CompletionQueue(engine)
    for name, request in requests.items():
        queue.submit(request.SerializeToString(), name)
    queue.flush()
    return await_calls(queue, len(requests))


def await_calls(queue, count):
    """The next completions, that many."""
    done = []
    while len(done) < count:
        assert select.select([queue.fileno()], [], [], 60)[0]
        done += queue.drain()
    return done
