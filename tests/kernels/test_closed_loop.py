"""kernels.closed_loop and counting_loop: they send and count what they are told to, and keep batches full."""

import numpy as np
import onnx_models
import pytest
from inference_messages import encode_request
from ways import every_way

from kernels.closed_loop import drive_engine
from kernels.counting_loop import count_batches


def make_message(model="same", rows=1):
    """A request to an identity model."""
    return encode_request(model, {"input": np.ones((rows, 4), np.float32)})


@every_way
@pytest.mark.parametrize(("requests", "window"), [(1, 1), (7, 3), (500, 64), (5, 64)])
def test_loop_has_every_request_answered(engine, load, requests, window):
    """As many as asked for reach the model, whatever the window, and every reply is counted."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    message = make_message()
    result = drive_engine(engine, [message], requests, window)
    assert engine.statistics("same", 1)["success"] == requests
    assert result.failed == 0
    assert result.reply_bytes == requests * len(engine.infer(message))
    assert result.elapsed_ns > 0


def test_loop_sends_messages_in_turn_and_counts_failures(engine, load):
    """Of three messages one is malformed and one is for nobody: two thirds fail, before they are queued."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    result = drive_engine(engine, [make_message(), b"\xff", make_message("nobody")], 300, 16)
    assert result.failed == 200
    assert engine.statistics("same", 1)["success"] == 100


@every_way
def test_loop_keeps_a_window_outstanding(engine, load):
    """A model that waits, as good as for ever, for full batches gets nothing but full ones."""
    load(onnx_models.identity(), "same", max_batch_size=32, queue_delay_us=10_000_000)
    drive_engine(engine, [make_message()], 32 * 200, 64)
    assert engine.statistics("same", 1)["executions"] == 200


@pytest.mark.parametrize(("messages", "requests", "window"), [([], 1, 1), ([b""], 0, 1), ([b""], 1, 0)])
def test_loop_without_work_is_refused(engine, messages, requests, window):
    """Nothing to send is an error, not a result."""
    with pytest.raises(ValueError, match="must"):
        drive_engine(engine, messages, requests, window)


def test_loop_of_no_bytes_is_refused(engine):
    """A message must be bytes, whose memory does not move."""
    with pytest.raises(TypeError, match="bytes"):
        drive_engine(engine, [bytearray(b"x")], 1, 1)


def test_counting_loop_counts_every_batch_and_refuses_none():
    """It asserts its own count."""
    assert count_batches(3, 100) > 0
    for rows, batches in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            count_batches(rows, batches)
