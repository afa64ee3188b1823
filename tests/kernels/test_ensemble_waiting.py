"""What a request of an ensemble says of its waiting is heard by the steps, and what they say of it by the caller."""

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows, refusal_of
from ensemble_graphs import load_chain
from inference_messages import build_request, encode_request
from waiting_line import BUSY_ITERATIONS, WaitingLine

from kernels import status
from kernels.completions import CompletionQueue
from kernels.queue_options import QueueOptions, QueuePolicy
from service.pb.open_inference_pb2 import ModelInferResponse

# As kernels/service_time.pyx has it.
ENOUGH_RUNS = 16
TEXT = "in ensemble 'chain', step 'moody': "


@pytest.fixture(params=["step", "step_of_a_step"])
def load_line(request, engine, load):
    """Load `moody` and `chain`, which has it as a step or within one: load_line(**options of moody)."""

    def load_all(**options):
        load(onnx_models.slow_by_value(), "moody", max_batch_size=1, **options)
        load_chain(engine, "moody", name="chain" if request.param == "step" else "inner", max_batch_size=1)
        if request.param == "step_of_a_step":
            load_chain(engine, "inner", max_batch_size=1)
        inner = "in ensemble 'chain', step 'inner': " + TEXT.replace("chain", "inner")
        return TEXT if request.param == "step" else inner

    return load_all


def ask(queue, name, number=1.0, *, timeout_us=-1, **parameters):
    """Submit a request to `chain` that takes as long as its number says."""
    message = encode_request("chain", {"input": np.full((1, 4), number, np.float32)}, **parameters)
    call = queue.submit(message, name, timeout_us=timeout_us)
    queue.flush()
    return call


def test_refusal_of_a_step_says_when_to_try_again(engine, load_line):
    """As of a call to its model; others' refusals say nothing."""
    text = load_line()
    for _ in range(ENOUGH_RUNS):
        infer(engine, "moody", {"input": np.full((1, 4), 20_000.0, np.float32)})
    line, queue = WaitingLine(engine), CompletionQueue(engine)
    line.occupy()
    for index in range(20):
        line.add(index)
    hasty = ask(queue, "hasty", timeout_us=5_000)
    [(call, code, told)] = await_calls(queue, 1)
    assert (call, code) == (hasty, status.EXHAUSTED)
    assert told.startswith(text + "the request would be answered ")
    assert hasty.retry_ns > 0
    line.take_all()
    again = ask(queue, "again")
    [(_, code, _)] = await_calls(queue, 1)
    assert (code, again.retry_ns) == (status.OK, 0)


def test_priority_of_a_request_is_that_of_its_steps(engine, load_line):
    """The most urgent comes first, whoever was there before."""
    levels = (QueuePolicy(), QueuePolicy())
    load_line(queueing=QueueOptions(levels=levels, default_level=2))
    line, queue = WaitingLine(engine), CompletionQueue(engine)
    line.occupy()
    for index in range(3):
        ask(queue, f"patient {index}")
    ask(queue, "urgent", priority=1)
    assert [call.context for call, _, _ in await_calls(queue, 4)] == ["urgent", "patient 0", "patient 1", "patient 2"]
    line.take_all()


def test_timeout_of_a_request_is_how_long_it_may_wait_for_a_step(engine, load_line):
    """Where the model's policy lets it say so."""
    text = load_line(queueing=QueueOptions(levels=(QueuePolicy(takes_timeouts=True),)))
    line, queue = WaitingLine(engine), CompletionQueue(engine)
    line.occupy()
    queue.submit(encode_request("chain", {"input": nonce_rows(1, 1)}, timeout_us=2_000), "short")
    queue.flush()
    [(_, code, told)] = await_calls(queue, 1)
    assert (code, told) == (status.EXPIRED, text + "the request's timeout passed while it was queued")
    assert engine.statistics("moody", 1)["timed_out"] == 1
    line.take_all()


def test_deadline_of_a_request_ends_its_waiting_for_a_step(engine, load_line):
    """And is no timeout."""
    text = load_line(queueing=QueueOptions(refuses_late=False))
    line = WaitingLine(engine)
    line.occupy()
    message = encode_request("chain", {"input": nonce_rows(1, 1)})
    assert refusal_of(engine, message, timeout_us=2_000) == (
        status.EXPIRED,
        text + "Deadline Exceeded while the request was queued",
    )
    line.take_all()


def test_server_timing_has_the_waiting_for_steps(engine, load_line):
    """All of it, and the times of their runs; it is not more than the whole."""
    load_line()
    line, queue = WaitingLine(engine), CompletionQueue(engine)
    line.occupy()
    request = build_request("chain", {"input": nonce_rows(1, 1)})
    request.parameters["server_timing"].bool_param = True
    queue.submit(request.SerializeToString(), None)
    queue.flush()
    [(_, code, reply)] = await_calls(queue, 1)
    assert code == status.OK
    line.take_all()
    timing = {
        name.removeprefix("server_timing."): value.int64_param
        for name, value in ModelInferResponse.FromString(reply).parameters.items()
    }
    waited, counts = engine.statistics("moody", 1)["queue_ns"], engine.statistics("chain", 1)
    assert timing["queue_ns"] > 0
    # The line's own request waited too, for a moment.
    assert timing["queue_ns"] <= waited + counts["queue_ns"]
    assert timing["queue_ns"] > BUSY_ITERATIONS / 1000
    assert timing["queue_ns"] + timing["compute_input_ns"] + timing["compute_infer_ns"] <= counts["success_ns"]
