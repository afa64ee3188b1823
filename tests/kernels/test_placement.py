"""kernels.placement: quick models run on the I/O threads once that is known, others never, and one overrun ends it."""

import numpy as np
import onnx_models
import pytest
from bound_service import WAIT_S, BoundService, infer_by
from inference_messages import decode_reply, encode_request

from kernels.engine import Engine
from kernels.session import Session

# Enough for a measurement, and some that a busy machine spoils.
CALLS = 20_000
# Far above what a quick model takes on a slow and busy machine, and far below what a slow one does on a fast one.
GENEROUS_US, STRICT_US = 20_000, 100
MANY_ITERATIONS = 100_000.0  # more than GENEROUS_US


@pytest.fixture
def engine(request):
    """An engine whose quick models may take their time, unless a test gives another limit."""
    made = Engine(inline_limit_us=getattr(request, "param", GENEROUS_US))
    yield made
    made.close()


def message(name, value=0.0):
    """A request of one row whose numbers are all `value`."""
    return encode_request(name, {"input": np.full((1, 4), value, np.float32)})


def call_until(engine, infer, name, is_inline):
    """Call until the model runs where it should; whether it came to that."""
    for _ in range(CALLS):
        infer(message(name), timeout=WAIT_S)
        if engine.statistics(name, 1)["inline"] == is_inline:
            return True
    return False


def test_quick_model_starts_on_workers_and_comes_to_run_inline(engine, load):
    """It is measured first; where it runs makes no difference to what it answers."""
    load(onnx_models.identity(), "quick", max_batch_size=8)
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        infer = infer_by(channel)
        assert not engine.statistics("quick", 1)["inline"]
        assert call_until(engine, infer, "quick", True)
        for nonce in range(20):
            reply = infer(message("quick", nonce), timeout=WAIT_S)
            np.testing.assert_array_equal(decode_reply(reply)["output"], np.full((1, 4), nonce, np.float32))


def test_measuring_runs_are_not_counted(engine, load):
    """Statistics are those of requests."""
    load(onnx_models.identity(), "quick", max_batch_size=8)
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        for _ in range(50):
            infer_by(channel)(message("quick"), timeout=WAIT_S)
    assert engine.statistics("quick", 1)["executions"] == 50


@pytest.mark.parametrize("engine", [STRICT_US], indirect=True)
def test_slow_model_never_runs_inline(engine, load):
    """Others on its I/O thread would wait for it."""
    load(onnx_models.slow(2000), "slow", max_batch_size=8)
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        for _ in range(300):
            infer_by(channel)(message("slow"), timeout=WAIT_S)
            assert not engine.statistics("slow", 1)["inline"]


def test_model_with_open_dimensions_never_runs_inline(engine, load):
    """Its largest batch is not known."""
    load(onnx_models.identity(shape=("batch", "columns")), "open", max_batch_size=8)
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        for _ in range(300):
            infer_by(channel)(message("open"), timeout=WAIT_S)
    assert not engine.statistics("open", 1)["inline"]


def test_overrun_sends_a_model_back_to_the_workers(engine, load):
    """What was measured holds until a request shows that it does not."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=8)
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        infer = infer_by(channel)
        assert call_until(engine, infer, "moody", True)
        infer(message("moody", MANY_ITERATIONS), timeout=WAIT_S)
        assert not engine.statistics("moody", 1)["inline"]
        assert call_until(engine, infer, "moody", True)


@pytest.mark.parametrize(("inline", "expected"), [("never", False), ("always", True)])
def test_setting_decides_without_a_measurement(tmp_path, inline, expected):
    """A quick model that may not, and a slow one that must."""
    model = onnx_models.slow(2000) if expected else onnx_models.identity()
    engine = Engine(inline=inline)
    engine.load("model", 1, Session(onnx_models.save(model, tmp_path, "model")), max_batch_size=8)
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        for _ in range(300):
            infer_by(channel)(message("model"), timeout=WAIT_S)
            assert engine.statistics("model", 1)["inline"] == expected
    engine.close()


@pytest.mark.parametrize("engine", [STRICT_US], indirect=True)
def test_model_whose_largest_batch_is_slow_never_runs_inline(engine, load):
    """Though each of its requests, of one row, is quick."""
    load(onnx_models.tiny(), "tiny", max_batch_size=16384)
    request = encode_request("tiny", {"input": np.zeros((1, 16), np.float32)})
    with BoundService(engine, io_threads=1) as service, service.connect() as channel:
        for _ in range(300):
            infer_by(channel)(request, timeout=WAIT_S)
            assert not engine.statistics("tiny", 1)["inline"]


def test_unknown_setting_is_refused():
    """With those that are known."""
    with pytest.raises(ValueError, match="expected one of auto, never, always"):
        Engine(inline="sometimes")
    with pytest.raises(ValueError, match="expected 0 to 1000000"):
        Engine(inline_limit_us=1_000_001)
