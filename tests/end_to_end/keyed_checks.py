"""Calls with an idempotency key by NVIDIA's own client; run by test_keyed_calls."""

import asyncio
import os

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async

ADDRESS = os.environ["ADDRESS"]


def make_inputs():
    """Rows for a model that gives other numbers at each run."""
    tensor = triton.InferInput("input", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    return [tensor]


def read_bytes(answer):
    """The output's bytes."""
    return answer.as_numpy("output").tobytes()


def test_repeated_calls_get_the_first_ones_answer():
    """The key is a header of the call."""
    with triton.InferenceServerClient(ADDRESS) as client:
        first, again, other, free = (
            read_bytes(client.infer("dice", make_inputs(), headers=headers))
            for headers in ({"idempotency-key": "t1"}, {"idempotency-key": "t1"}, {"idempotency-key": "t2"}, None)
        )
    assert first == again
    assert len({first, other, free}) == 3


def test_calls_at_one_time_get_one_answer():
    """By its asyncio client."""

    async def ask_together():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            calls = [client.infer("dice", make_inputs(), headers={"idempotency-key": "t3"}) for _ in range(16)]
            return {read_bytes(answer) for answer in await asyncio.gather(*calls)}

    assert len(asyncio.run(ask_together())) == 1
