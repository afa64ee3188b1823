"""kernels.trace: sampled requests leave their times, in order, and nobody else leaves any."""

import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import encode_request

KEPT = 1024


def ask(engine, model, times, **options):
    """So many requests, one after another."""
    for index in range(times):
        infer(engine, model, {"input": nonce_rows(index, 1)}, **options)


def test_nothing_is_traced_until_asked_for(engine, load):
    """And nothing any more once it is turned off."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    ask(engine, "same", 3)
    assert engine.take_traces() == ([], 0)
    engine.set_tracing({"": 1})
    ask(engine, "same", 3)
    assert len(engine.take_traces()[0]) == 3
    engine.set_tracing({"": 0})
    ask(engine, "same", 3)
    assert engine.take_traces() == ([], 0)


@pytest.mark.parametrize("rate", [1, 2, 5])
def test_one_request_in_so_many_is_traced(engine, load, rate):
    """The first, and each that comes so many later."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    engine.set_tracing({"": rate})
    for index in range(10):
        infer(engine, "same", {"input": nonce_rows(index, 1)}, request_id=str(index))
    assert [trace.request_id for trace in engine.take_traces()[0]] == [str(index) for index in range(0, 10, rate)]


def test_trace_says_whose_it_is_and_when_it_was_where(engine, load):
    """Model, version, id; moments in their order; the run is the longest of a slow model."""
    load(onnx_models.slow(), "slow", 7, max_batch_size=1)
    engine.set_tracing({"": 1})
    infer(engine, "slow", {"input": nonce_rows(1, 1)}, request_id="naïve")
    [trace], _ = engine.take_traces()
    assert (trace.model, trace.version, trace.request_id) == ("slow", 7, "naïve")
    moments = [trace.arrival_ns, trace.taken_ns, trace.gathered_ns, trace.ran_ns, trace.ended_ns]
    assert moments == sorted(moments)
    assert trace.ran_ns - trace.gathered_ns > (trace.ended_ns - trace.arrival_ns) / 2
    assert trace.ran_ns - trace.gathered_ns == engine.statistics("slow", 7)["run_ns"]


def test_rate_is_each_models_own_also_of_those_loaded_later(engine, load):
    """Models are told apart by name."""
    load(onnx_models.identity(), "one", max_batch_size=4)
    engine.set_tracing({"": 0, "two": 2})
    load(onnx_models.identity(), "two", max_batch_size=4)
    ask(engine, "one", 4)
    ask(engine, "two", 4)
    assert [trace.model for trace in engine.take_traces()[0]] == ["two", "two"]


def test_book_that_is_full_loses_the_newest_and_counts_them(engine, load):
    """Memory is bounded, whoever forgets to take."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    engine.set_tracing({"": 1})
    ask(engine, "same", KEPT + 5)
    traces, lost = engine.take_traces()
    assert (len(traces), lost) == (KEPT, 5)
    assert engine.take_traces() == ([], 0)


@pytest.mark.parametrize(
    ("given", "kept"), [("", ""), ("x" * 64, "x" * 64), ("x" * 500, "x" * 64), ("x" * 63 + "é", "x" * 63 + "�")]
)
def test_request_id_is_cut_where_it_is_too_long(engine, load, given, kept):
    """In the midst of a character too."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    engine.set_tracing({"": 1})
    ask(engine, "same", 1, request_id=given)
    assert engine.take_traces()[0][0].request_id == kept


def test_request_that_never_ran_leaves_no_trace(engine, load):
    """There is nothing to say of its way."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    engine.set_tracing({"": 1})
    refusal_of(engine, encode_request("same", {"input": nonce_rows(1, 1, width=3)}))
    assert engine.take_traces() == ([], 0)
