"""kernels.ensemble_resolver and what happens to ensembles whose steps fail, are withdrawn, or come and go."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows, refusal_of
from ensemble_graphs import chain, echo, load_chain, load_ensemble, load_parts, spec, step
from inference_messages import decode_reply, encode_request
from onnx import TensorProto

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.ensemble import Ensemble
from kernels.session import Session

INPUT, OUTPUT = spec("input", -1, 4), spec("output", -1, 4)
INDEX, PICKED = spec("index", -1, datatype="INT64"), spec("picked", -1)


def load_picking(engine, load):
    """`picking`: a slow way from `input` to `output`, and one from `index` that fails for an index beyond 9."""
    load(onnx_models.slow_by_value(), "slow", max_batch_size=8)
    load(onnx_models.picker(), "picker", max_batch_size=8)
    steps = [*chain("slow", "slow"), step("picker", {"index": "index"}, {"output": "picked"})]
    load_ensemble(engine, "picking", [INPUT, INDEX], [OUTPUT, PICKED], steps, max_batch_size=8)


def pick(index, iterations=1, **options):
    """A request for `picking`."""
    inputs = {"input": np.full((1, 4), iterations, np.float32), "index": np.array([index], np.int64)}
    return encode_request("picking", inputs, **options)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        (chain("nobody"), "its step 'nobody' is unknown"),
        ([echo("input", "output")._replace(version=7)], "its step 'same' version 7 is unknown"),
        (chain("broken"), "its step 'broken' is unavailable: its file is broken"),
        ([step("same", {"x": "input"}, {"output": "output"})], "input 'input' of its step 'same' is fed by no tensor"),
        (
            [step("same", {"input": "input", "x": "input"}, {"output": "output"})],
            "its step 'same' has no input 'x'",
        ),
        ([step("same", {"input": "input"}, {"y": "output"})], "its step 'same' has no output 'y'"),
        (chain("whole"), "tensor 'input' for input 'input' of its step 'whole' has datatype FP32; expected INT64"),
        (
            chain("wide"),
            "tensor 'input' for input 'input' of its step 'wide' has shape [-1, 4]; expected [-1, 5]",
        ),
        (
            [step("sums", {"a": "input", "b": "input"}, {"sum": "x"}), echo("x", "output", "wide")],
            "tensor 'x' for input 'input' of its step 'wide' has shape [-1, 4]; expected [-1, 5]",
        ),
        (chain("few"), "its max_batch_size is 8, and that of its step 'few' is 4"),
        (chain("itself"), "its step 'itself' is unavailable: ensembles contain each other: 'itself' → 'itself'"),
    ],
)
def test_steps_that_do_not_fit_make_an_ensemble_unavailable(engine, load, steps, fault):
    """With the names of what does not fit, for callers and for who loads it."""
    load_parts(load)
    load(onnx_models.identity(TensorProto.INT64), "whole", max_batch_size=8)
    load(onnx_models.identity(shape=("batch", 5)), "wide", max_batch_size=8)
    load(onnx_models.identity(), "few", max_batch_size=4)
    engine.set_unavailable("broken", 1, "its file is broken")
    load_chain(engine, "itself", name="itself")
    load_ensemble(engine, "graph", [INPUT], [OUTPUT], steps, max_batch_size=8)
    code, text = refusal_of(engine, encode_request("graph", {"input": nonce_rows(1, 1)}))
    assert (code, text) == (status.UNAVAILABLE, f"model 'graph' is unavailable: {fault}")
    assert engine.ensembles()["graph", 1] == engine.versions()["graph", 1] == fault


def test_output_of_another_datatype_makes_an_ensemble_unavailable(engine, load):
    """What it promises is not what its step makes."""
    load_parts(load)
    load_ensemble(engine, "graph", [INPUT], [spec("output", -1, 4, datatype="FP64")], chain("same"), max_batch_size=8)
    assert engine.ensembles()["graph", 1] == "output 'output' has datatype FP32; expected FP64"


def test_ensembles_that_contain_each_other_are_unavailable(engine, load):
    """Both say so, and another ensemble with the same model is not disturbed."""
    load_parts(load)
    load_chain(engine, "two", name="one")
    load_chain(engine, "one", name="two")
    load_chain(engine, "same", name="sound")
    faults = engine.ensembles()
    assert faults["sound", 1] is None
    assert "ensembles contain each other: 'one' → 'two' → 'one'" in faults["one", 1]
    assert "ensembles contain each other" in faults["two", 1]


def test_find_fault_tells_before_an_ensemble_is_in_place(engine, load):
    """So that one that runs need not be given up for one that does not."""
    made = engine.prepare_ensemble("chain", 1, Ensemble([INPUT], [OUTPUT], chain("same")), max_batch_size=8)
    assert engine.find_fault(made) == "its step 'same' is unknown"
    load_parts(load)
    assert engine.find_fault(made) is None
    engine.retire([made])


def test_ensemble_is_available_as_its_steps_are(engine, load):
    """One that is unloaded, and one that comes back."""
    load_parts(load)
    load_chain(engine, "same", "same", name="inner")
    load_chain(engine, "inner", name="outer")
    message = encode_request("outer", {"input": nonce_rows(1, 1)})
    assert engine.infer(message)
    engine.unload("same", 1)
    assert refusal_of(engine, message)[0] == status.UNAVAILABLE
    assert set(engine.ensembles().values()) != {None}
    load_parts(load)
    assert engine.infer(message)
    assert set(engine.ensembles().values()) == {None}


def test_step_runs_the_version_it_names_or_the_highest(engine, load):
    """The highest that serves, as for a request without a version."""
    load(onnx_models.tiny(seed=1), "tiny", 1, max_batch_size=8)
    load(onnx_models.tiny(seed=2), "tiny", 2, max_batch_size=8)
    engine.set_unavailable("tiny", 3, "its file is broken")
    tensors = spec("input", -1, 16), spec("output", -1, 4)
    for name, version in (("first", 1), ("newest", -1)):
        load_ensemble(
            engine,
            name,
            tensors[:1],
            tensors[1:],
            [echo("input", "output", "tiny")._replace(version=version)],
            max_batch_size=8,
        )
    rows = {"input": np.ones((1, 16), np.float32)}
    by_version = {version: infer(engine, "tiny", rows, version=version)["output"].tolist() for version in ("1", "2")}
    assert infer(engine, "first", rows)["output"].tolist() == by_version["1"] != by_version["2"]
    assert infer(engine, "newest", rows)["output"].tolist() == by_version["2"]


def test_reload_of_a_step_under_load_fails_nobody(engine, load):
    """A request that began with a version ends with it."""
    load_parts(load)
    load_chain(engine, "same", "same", "same")
    stop = threading.Event()

    def call(caller):
        turn = 0
        while not stop.is_set():
            rows = nonce_rows(caller * 4096 + turn, 1 + turn % 3)
            np.testing.assert_array_equal(infer(engine, "chain", {"input": rows})["output"], rows)
            turn += 1
        return turn

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(call, caller) for caller in range(4)]
        for _ in range(20):
            load_parts(load)
        stop.set()
        assert sum(caller.result() for caller in callers) > 20
    assert engine.pending_bytes == 0


def test_unload_of_a_step_finishes_what_an_ensemble_has_begun(engine, load):
    """Also the steps that it has not come to yet: the unload waits for them, and they for no further requests."""
    load_parts(load, queue_delay_us=60_000_000)
    load(onnx_models.slow(), "slow", max_batch_size=8)
    load_chain(engine, "slow", "same")
    message = encode_request("chain", {"input": nonce_rows(3, 1)})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.infer, message)
        while engine.statistics("slow", 1)["running"] == 0:
            pass
        started = time.monotonic()
        engine.unload("same", 1)
        assert time.monotonic() - started < 30
        np.testing.assert_array_equal(decode_reply(running.result())["output"], nonce_rows(3, 1))
    assert refusal_of(engine, message)[0] == status.UNAVAILABLE


def test_failing_step_fails_its_request_alone(engine, load):
    """Others that ran in the same batches get their own."""
    load_picking(engine, load)
    queue = CompletionQueue(engine)
    for index in range(20):
        queue.submit(pick(index), index)
    queue.flush()
    for call, code, reply in await_calls(queue, 20):
        if call.context < 10:
            assert decode_reply(reply)["picked"].tolist() == [1.5 * call.context]
        else:
            assert code == status.INVALID
            assert reply.startswith("in ensemble 'picking', step 'picker': ")
    assert engine.pending_bytes == 0
    counts = engine.statistics("picking", 1)
    assert (counts["success"], counts["failed"]) == (10, 10)


def test_failing_step_cancels_those_that_wait(engine, load):
    """What is behind a slow step is not begun, and the caller is answered once nothing runs for it."""
    load_picking(engine, load)
    code, text = refusal_of(engine, pick(99, iterations=100_000))
    assert code == status.INVALID
    assert "step 'picker'" in text
    assert engine.statistics("slow", 1)["success"] == 0
    assert engine.statistics("slow", 1)["cancelled"] == 1


def test_cancelled_request_cancels_its_steps(engine, load):
    """One that runs is dropped, the next is not begun."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    load_chain(engine, "slow", "slow", name="inner", max_batch_size=1)
    load_chain(engine, "inner", "slow", max_batch_size=1)
    queue = CompletionQueue(engine)
    call = queue.submit(encode_request("chain", {"input": nonce_rows(1, 1)}), None)
    queue.flush()
    while engine.statistics("slow", 1)["running"] == 0:
        pass
    call.cancel()
    [(_, code, text)] = await_calls(queue, 1)
    assert (code, text) == (status.CANCELLED, "the request was cancelled while it ran")
    assert engine.statistics("slow", 1)["executions"] == 1
    assert [engine.statistics(name, 1)["cancelled"] for name in ("slow", "inner", "chain")] == [1, 1, 1]
    assert engine.pending_bytes == 0


def test_deadline_expires_in_the_queue_of_any_step(engine, load):
    """What has run before is for nothing; what comes after is not begun."""
    load_parts(load, queue_delay_us=0)
    load(onnx_models.slow(2_000_000), "slow", max_batch_size=1)
    load_chain(engine, "same", "slow", "same", max_batch_size=1)
    busy = CompletionQueue(engine)
    busy.submit(encode_request("slow", {"input": nonce_rows(1, 1)}), None)
    busy.flush()
    while engine.statistics("slow", 1)["running"] == 0:
        pass
    code, text = refusal_of(engine, encode_request("chain", {"input": nonce_rows(1, 1)}), timeout_us=20_000)
    assert code == status.EXPIRED
    assert text == "in ensemble 'chain', step 'slow': Deadline Exceeded while the request was queued"
    assert engine.statistics("chain", 1)["expired"] == 1
    assert engine.statistics("same", 1)["success"] == 1
    await_calls(busy, 1)


def test_full_queue_of_a_step_refuses_the_request(engine, load):
    """Back-pressure reaches the ensemble's callers as RESOURCE_EXHAUSTED."""
    load(onnx_models.slow(), "slow", max_batch_size=1, max_queue_requests=1)
    load_chain(engine, "slow", max_batch_size=1)
    queue = CompletionQueue(engine)
    for index in range(12):
        queue.submit(encode_request("chain", {"input": nonce_rows(index, 1)}), index)
    queue.flush()
    outcomes = [(code, reply) for _, code, reply in await_calls(queue, 12)]
    refused = [reply for code, reply in outcomes if code == status.EXHAUSTED]
    assert {code for code, _ in outcomes} == {status.OK, status.EXHAUSTED}
    assert all(
        "in ensemble 'chain', step 'slow': the queue of model 'slow' version 1 is full" in one for one in refused
    )
    assert engine.statistics("chain", 1)["rejected"] == len(refused)


def test_full_ensemble_refuses_the_request(engine, load):
    """As a model's queue does."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    graph = Ensemble([INPUT], [OUTPUT], chain("slow"))
    made = engine.prepare_ensemble("chain", 1, graph, max_batch_size=1, max_queue_requests=2)
    engine.retire(engine.exchange({("chain", 1): made}))
    queue = CompletionQueue(engine)
    for index in range(3):
        queue.submit(encode_request("chain", {"input": nonce_rows(index, 1)}), index)
    queue.flush()
    outcomes = sorted((code, reply) for _, code, reply in await_calls(queue, 3))
    assert [code for code, _ in outcomes] == [status.OK, status.OK, status.EXHAUSTED]
    assert outcomes[2][1] == "ensemble 'chain' version 1 is full: 2 requests are in it"


def test_tensors_between_steps_count_as_pending_bytes(tmp_path):
    """A step that makes much of little is held to the server's limit; nothing stays counted."""
    engine = Engine(max_pending_bytes=32 * 1024)
    engine.load("widener", 1, Session(onnx_models.save(onnx_models.widener(), tmp_path, "widener")), max_batch_size=8)
    engine.load(
        "same",
        1,
        Session(onnx_models.save(onnx_models.identity(shape=("batch", 16384)), tmp_path, "same")),
        max_batch_size=8,
    )
    load_ensemble(
        engine,
        "grown",
        [spec("input", -1, 1)],
        [spec("output", -1, 16384)],
        [echo("input", "wide", "widener"), echo("wide", "output")],
        max_batch_size=8,
    )
    for _ in range(3):
        code, text = refusal_of(engine, encode_request("grown", {"input": nonce_rows(1, 1, 1)}))
        assert code == status.EXHAUSTED
        assert text.startswith("in ensemble 'grown', step 'same': the server holds 655")
    assert engine.pending_bytes == 0
    engine.close()


def test_drain_waits_for_ensembles(engine, load):
    """And for the steps that they begin meanwhile."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    load_chain(engine, "slow", "slow", "slow", max_batch_size=1)
    queue = CompletionQueue(engine)
    queue.submit(encode_request("chain", {"input": nonce_rows(1, 1)}), None)
    queue.flush()
    assert not engine.drain(0.0)
    assert engine.drain(60.0)
    [(_, code, _)] = queue.drain()
    assert code == status.OK


def test_drain_has_no_step_wait_for_company(engine, load):
    """However long its model's delay is."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    load(onnx_models.identity(), "same", max_batch_size=8, queue_delay_us=60_000_000)
    load_chain(engine, "slow", "same", max_batch_size=1)
    queue = CompletionQueue(engine)
    queue.submit(encode_request("chain", {"input": nonce_rows(1, 1)}), None)
    queue.flush()
    assert engine.drain(30.0)
    [(_, code, _)] = queue.drain()
    assert code == status.OK


def test_infer_on_an_ensemble_out_of_place_is_refused(engine, load):
    """It has no steps of its own to run on."""
    made = engine.prepare_ensemble("chain", 1, Ensemble([INPUT], [OUTPUT], chain("same")))
    with pytest.raises(ValueError, match="an ensemble runs only where its steps serve"):
        engine.infer(b"", target=made)
    engine.retire([made])
