"""kernels.version_counts: a version's counters go on where it has been out of memory, and end where it is replaced."""

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows
from inference_messages import encode_request

from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.parking import DormantModel
from kernels.session import Session

SUMS = ("success", "rows", "executions", "success_ns", "queue_ns", "run_ns", "last_inference_ms")


def ask(engine, rows=1, model="echo"):
    """One request."""
    infer(engine, model, {"input": nonce_rows(1, rows)})


def rest(engine, model="echo"):
    """Put a model to rest; what it was, to be retired."""
    return engine.exchange({(model, 1): DormantModel(model)})


def read(engine, model="echo"):
    """All that is counted of its version 1."""
    return engine.read_statistics(model, 1)


def test_counts_go_on_with_the_next_load(engine, load):
    """Totals, histograms, batches by their rows and reasons: nothing falls, at no time."""
    load(onnx_models.identity(), "echo", max_batch_size=8)
    ask(engine, rows=1)
    ask(engine, rows=3)
    before = read(engine)
    engine.retire(rest(engine))
    assert read(engine) == before
    load(onnx_models.identity(), "echo", max_batch_size=8)
    assert read(engine) == before
    ask(engine, rows=3)
    ask(engine, rows=8)
    after = read(engine)
    assert (after.counts["success"], after.counts["rows"], after.counts["executions"]) == (4, 15, 4)
    assert all(after.counts[name] >= before.counts[name] > 0 for name in SUMS)
    assert {batch.rows: batch.executions for batch in after.batches} == {1: 1, 3: 2, 8: 1}
    assert {phase: sum(counts) for phase, counts in after.histograms.items()} == dict.fromkeys(after.histograms, 4)
    assert sum(after.dispatches.values()) == 4
    assert engine.statistics("echo", 1)["success"] == 4


def test_counts_of_what_is_finished_at_rest_are_neither_lost_nor_counted_twice(engine, load):
    """A request that was admitted before, and ends when the next load is there."""
    load(onnx_models.slow(), "echo", max_batch_size=1)
    queue = CompletionQueue(engine)
    queue.submit(encode_request("echo", {"input": nonce_rows(1, 1)}), 1)
    queue.submit(encode_request("echo", {"input": nonce_rows(2, 1)}), 2)
    queue.flush()
    replaced = rest(engine)
    assert read(engine).counts["success"] == 0
    load(onnx_models.identity(), "echo", max_batch_size=8)
    ask(engine)
    await_calls(queue, 2)
    assert read(engine).counts["success"] == engine.statistics("echo", 1)["success"] == 3
    engine.retire(replaced)
    assert read(engine).counts["success"] == engine.statistics("echo", 1)["success"] == 3


def test_counts_add_up_over_many_rests(engine, load):
    """Each stay adds its own."""
    for stay in range(1, 6):
        load(onnx_models.identity(), "echo", max_batch_size=8)
        ask(engine, rows=stay)
        assert read(engine).counts["rows"] == sum(range(1, stay + 1))
        engine.retire(rest(engine))
    assert read(engine).counts["success"] == 5


def test_counts_end_with_a_version_that_is_replaced_or_removed(engine, load):
    """As without rests: it is another one that is loaded then."""
    load(onnx_models.identity(), "echo", max_batch_size=8)
    ask(engine)
    engine.retire(rest(engine))
    load(onnx_models.identity(), "echo", max_batch_size=8)
    load(onnx_models.identity(), "echo", max_batch_size=8)
    assert read(engine).counts["success"] == 0
    ask(engine)
    engine.retire(rest(engine))
    engine.unload("echo", 1)
    engine.exchange({("echo", 1): DormantModel("echo")})
    with pytest.raises(KeyError):
        read(engine)
    load(onnx_models.identity(), "echo", max_batch_size=8)
    assert read(engine).counts["success"] == 0


def test_counts_outlast_a_load_that_fails(engine, load):
    """The version says nothing while it is refused, and goes on once it is there again."""
    load(onnx_models.identity(), "echo", max_batch_size=8)
    ask(engine)
    engine.retire(rest(engine))
    engine.set_unavailable("echo", 1, "the file is away")
    with pytest.raises(KeyError):
        read(engine)
    load(onnx_models.identity(), "echo", max_batch_size=8)
    assert read(engine).counts["success"] == 1


def test_dormant_version_that_never_was_in_memory_has_no_counts(engine):
    """There may be thousands of them."""
    engine.exchange({("echo", 1): DormantModel("echo")})
    for ask_engine in (engine.statistics, engine.read_statistics):
        with pytest.raises(KeyError):
            ask_engine("echo", 1)


def test_reply_kept_of_an_earlier_stay_is_not_given(tmp_path):
    """What leaves memory takes its replies along: the file may be another one by the next load."""

    engine = Engine(response_cache_bytes=1 << 20)
    for scale in (2.0, 3.0):
        path = onnx_models.save(onnx_models.scaler((scale,)), tmp_path, "scaler")
        engine.load("scaler", 1, Session(path), cache_replies=True)
        for _ in range(2):
            given = infer(engine, "scaler", {"input": np.ones(1, np.float32)})
            assert given["output"].tolist() == [scale]
        assert engine.cache_usage()["entries"] == 1
        engine.retire(rest(engine, "scaler"))
        assert engine.cache_usage()["entries"] == 0
    assert engine.statistics("scaler", 1)["cache_hits"] == 2
    engine.close()
