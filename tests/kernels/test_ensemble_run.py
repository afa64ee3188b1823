"""kernels.ensemble_run: an ensemble answers as its models would, called one after the other."""

import numpy as np
import onnx_models
import pytest
from datatypes import DTYPES
from engine_calls import await_calls, infer, nonce_rows, refusal_of
from ensemble_graphs import echo, load_chain, load_ensemble, load_parts, spec, step
from inference_messages import build_request, decode_reply, encode_request
from onnx import TensorProto

from kernels import status
from kernels.completions import CompletionQueue
from service.pb import open_inference_pb2 as pb


@pytest.fixture
def diamond(engine, load):
    """`a` and `b` to their sum and difference, and both of these again to 2a and 2b, as `double_a` and `double_b`."""
    load_parts(load)
    both = {"a": "sum", "b": "difference"}
    steps = [
        step("sums", {"a": "a", "b": "b"}, {"sum": "sum", "difference": "difference"}),
        step("sums", both, {"sum": "double_a", "difference": "double_b"}),
    ]
    outputs = [spec(name, -1, 4) for name in ("double_a", "double_b", "sum")]
    load_ensemble(engine, "diamond", [spec("a", -1, 4), spec("b", -1, 4)], outputs, steps, max_batch_size=8)
    return engine


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("width", [4, 4096])
def test_chain_passes_every_row_on(engine, load, rows, width):
    """Small tensors, and such as are run on where they lie."""
    load(onnx_models.identity(shape=("batch", width)), "same", max_batch_size=8)
    load_chain(engine, "same", "same", "same", width=width)
    given = nonce_rows(7, rows, width)
    np.testing.assert_array_equal(infer(engine, "chain", {"input": given})["output"], given)
    assert engine.statistics("same", 1)["success"] == 3
    assert engine.pending_bytes == 0


def test_tensors_of_several_steps_come_together(diamond):
    """An output may also feed a step, and one step make several."""
    a, b = nonce_rows(1, 2), nonce_rows(9, 2)
    made = infer(diamond, "diamond", {"a": a, "b": b})
    np.testing.assert_array_equal(made["double_a"], 2 * a)
    np.testing.assert_array_equal(made["double_b"], 2 * b)
    np.testing.assert_array_equal(made["sum"], a + b)
    assert diamond.pending_bytes == 0


@pytest.mark.parametrize(("outputs", "runs"), [(["sum"], 1), (["double_b", "sum"], 2), (["double_a"], 2)])
def test_only_steps_that_are_needed_run(diamond, outputs, runs):
    """By the outputs that the request names, which come in its order."""
    rows = {"a": nonce_rows(1, 2), "b": nonce_rows(9, 2)}
    assert list(infer(diamond, "diamond", rows, outputs=outputs)) == outputs
    assert diamond.statistics("sums", 1)["success"] == runs


def test_reply_has_the_ensembles_name_version_and_the_requests_id(engine, load):
    """Not those of a step."""
    load_parts(load)
    load_chain(engine, "same", "same", version=3)
    message = encode_request("chain", {"input": nonce_rows(1, 1)}, request_id="mine", version="3")
    reply = pb.ModelInferResponse.FromString(engine.infer(message))
    assert (reply.model_name, reply.model_version, reply.id) == ("chain", "3", "mine")


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_every_datatype_passes_through(engine, load, datatype):
    """Every bit of it, strings with NUL and of no length among them."""
    load(onnx_models.identity(onnx_models.ELEMENT_TYPES[datatype], ("batch", 3)), "same", max_batch_size=4)
    tensors = [spec(name, -1, 3, datatype=datatype) for name in ("input", "output")]
    load_ensemble(
        engine, "twice", tensors[:1], tensors[1:], [echo("input", "x"), echo("x", "output")], max_batch_size=4
    )
    if datatype == "BYTES":
        given = np.array([[b"", b"a\0b", b"\xff"], [b"x" * 9999, b"\0", b"y"]], dtype=object)
    else:
        given = np.arange(6).reshape(2, 3).astype(DTYPES[datatype])
    assert infer(engine, "twice", {"input": given})["output"].tolist() == given.tolist()


def test_typed_contents_and_shapes_are_read_as_of_a_model(engine, load):
    """What fits no tensor of the ensemble is refused in its name, before a step runs."""
    load_parts(load)
    load_chain(engine, "same")
    request = build_request("chain", {"input": nonce_rows(1, 2)})
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend(range(8))
    given = decode_reply(engine.infer(request.SerializeToString()))["output"]
    assert given.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for rows, text in ((np.zeros((1, 3), np.float32), "has the wrong shape"), (nonce_rows(1, 9), "at most 8")):
        code, complaint = refusal_of(engine, encode_request("chain", {"input": rows}))
        assert code == status.INVALID
        assert text in complaint
    assert engine.statistics("same", 1)["refused"] == 0
    assert engine.statistics("chain", 1)["refused"] == 2


def test_requests_of_many_callers_meet_in_one_batch(engine, load):
    """Steps wait in their models' queues like anybody's requests."""
    load(onnx_models.identity(), "same", max_batch_size=4, queue_delay_us=10_000_000)
    load_chain(engine, "same", "same", max_batch_size=4)
    queue = CompletionQueue(engine)
    for index in range(4):
        queue.submit(encode_request("chain", {"input": nonce_rows(index, 1)}), index)
    queue.flush()
    for call, code, reply in await_calls(queue, 4):
        assert code == status.OK
        np.testing.assert_array_equal(decode_reply(reply)["output"], nonce_rows(call.context, 1))
    assert [(batch.rows, batch.executions) for batch in engine.read_statistics("same", 1).batches] == [(4, 2)]


def test_ensemble_within_an_ensemble_runs(engine, load):
    """With statistics of each."""
    load_parts(load)
    load_chain(engine, "same", "same", name="inner")
    load_chain(engine, "inner", "same", "inner", name="outer")
    given = nonce_rows(5, 3)
    np.testing.assert_array_equal(infer(engine, "outer", {"input": given})["output"], given)
    counts = {name: engine.statistics(name, 1)["success"] for name in ("outer", "inner", "same")}
    assert counts == {"outer": 1, "inner": 2, "same": 5}
    assert engine.pending_bytes == 0


def test_shapes_gain_and_lose_a_batch_of_one(engine, load):
    """Between models that batch and such that do not, as Triton has it."""
    load_parts(load)
    load(onnx_models.identity(shape=(4,)), "flat")
    steps = [echo("input", "one", "flat"), echo("one", "two"), echo("two", "output", "flat")]
    load_ensemble(engine, "mixed", [spec("input", 4)], [spec("output", 4)], steps)
    given = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(infer(engine, "mixed", {"input": given})["output"], given)


def test_batch_of_several_for_a_model_that_does_not_batch_is_refused(engine, load):
    """It would have to lose all but one of its rows."""
    load_parts(load)
    load(onnx_models.identity(shape=(4,)), "flat")
    steps = [echo("input", "one"), echo("one", "output", "flat")]
    load_ensemble(engine, "mixed", [spec("input", -1, 4)], [spec("output", 4)], steps)
    assert infer(engine, "mixed", {"input": nonce_rows(1, 1)})["output"].shape == (4,)
    code, text = refusal_of(engine, encode_request("mixed", {"input": nonce_rows(1, 2)}))
    assert code == status.INVALID
    assert text == (
        "in ensemble 'mixed', step 'flat': input 'input' is a batch of 2 rows; expected 1: the model does not batch"
    )


def test_open_dimension_that_does_not_fit_the_next_step_is_refused(engine, load):
    """What the graph leaves open is checked when it is there."""
    load(onnx_models.identity(shape=("rows", "columns")), "wide")
    load(onnx_models.identity(shape=("rows", 4)), "narrow")
    steps = [echo("input", "between", "wide"), echo("between", "output", "narrow")]
    load_ensemble(engine, "funnel", [spec("input", -1, -1)], [spec("output", -1, 4)], steps)
    assert infer(engine, "funnel", {"input": nonce_rows(1, 3)})["output"].shape == (3, 4)
    code, text = refusal_of(engine, encode_request("funnel", {"input": nonce_rows(1, 3, 5)}))
    assert code == status.INVALID
    assert text == (
        "in ensemble 'funnel', step 'narrow': input 'input' has the wrong shape: expected [-1,4], got [3,5]"
    )


def test_empty_tensors_pass_through(engine, load):
    """Their bytes are none, their shapes are there."""
    load(onnx_models.identity(shape=("rows", "columns")), "wide")
    steps = [echo("input", "between", "wide"), echo("between", "output", "wide")]
    load_ensemble(engine, "twice", [spec("input", -1, -1)], [spec("output", -1, -1)], steps)
    assert infer(engine, "twice", {"input": np.zeros((3, 0), np.float32)})["output"].shape == (3, 0)


def test_output_of_another_shape_than_promised_fails(engine, load):
    """The ensemble says less than its step does; nobody gets what was not promised."""
    load(onnx_models.identity(shape=("rows", "columns")), "wide")
    load_ensemble(engine, "funnel", [spec("input", -1, -1)], [spec("output", -1, 4)], [echo("input", "output", "wide")])
    assert infer(engine, "funnel", {"input": nonce_rows(1, 3)})["output"].shape == (3, 4)
    code, text = refusal_of(engine, encode_request("funnel", {"input": nonce_rows(1, 3, 5)}))
    assert code == status.INTERNAL
    assert "output 'output' has another shape than the ensemble's config.pbtxt says" in text


def test_other_number_of_rows_than_the_requests_fails(engine, load):
    """A step that does not batch may make any number of them."""
    load(onnx_models.halver(), "halver")
    load_ensemble(
        engine,
        "half",
        [spec("input", -1, 4)],
        [spec("output", -1, 4)],
        [echo("input", "output", "halver")],
        max_batch_size=8,
    )
    code, text = refusal_of(engine, encode_request("half", {"input": nonce_rows(1, 4)}))
    assert code == status.INTERNAL
    assert "output 'output' has another number of rows than the request" in text


@pytest.mark.parametrize(("scale", "expected"), [(None, [2, 4]), (10, [10, 20])])
def test_optional_input_may_be_left_out(engine, load, scale, expected, tmp_path):
    """Then the step's model does without it too."""
    from kernels.session import Session

    session = Session(onnx_models.save(onnx_models.scaler(), tmp_path, "scaler"), optional_inputs=["scale"])
    engine.load("scaler", 1, session)
    steps = [step("scaler", {"input": "input", "scale": "factor"}, {"output": "output"})]
    load_ensemble(
        engine, "scaled", [spec("input", -1), spec("factor", 1)], [spec("output", -1)], steps, optional=["factor"]
    )
    inputs = {"input": np.array([1, 2], np.float32)}
    if scale is not None:
        inputs["factor"] = np.array([scale], np.float32)
    assert infer(engine, "scaled", inputs)["output"].tolist() == expected


def classes_of(engine, model):
    """The largest element of each row, as text."""
    request = build_request(model, {"input": np.array([[1, 3, 2, 0], [9, 8, 7, 6]], np.float32)}, outputs=["output"])
    request.outputs[0].parameters["classification"].int64_param = 1
    return decode_reply(engine.infer(request.SerializeToString()))["output"].tolist()


def test_classes_have_the_ensembles_labels_or_the_steps(engine, load, tmp_path):
    """The ensemble's own come first."""
    from kernels.interface import Interface
    from kernels.session import Session

    session = Session(onnx_models.save(onnx_models.identity(), tmp_path, "named"))
    labels = Interface(session, labels=[[b"cat", b"dog", b"bird", b"cow"]])
    engine.load("named", 1, session, max_batch_size=8, interface=labels)
    load_chain(engine, "named", "named")
    load_chain(engine, "chain", name="outer")
    load_chain(engine, "named", name="own", labels=[[b"red", b"green"]])
    expected = [[b"3.000000:1:dog"], [b"9.000000:0:cat"]]
    assert classes_of(engine, "chain") == classes_of(engine, "outer") == expected
    assert classes_of(engine, "own") == [[b"3.000000:1:green"], [b"9.000000:0:red"]]


def test_statistics_count_an_ensemble_as_one_execution_a_request(engine, load):
    """Its phases are its steps' in all."""
    load_parts(load)
    load_chain(engine, "same", "same")
    for rows in (1, 3):
        infer(engine, "chain", {"input": nonce_rows(1, rows)})
    read, steps = engine.read_statistics("chain", 1), engine.read_statistics("same", 1).counts
    assert (read.counts["success"], read.counts["executions"], read.counts["rows"]) == (2, 2, 4)
    assert [(batch.rows, batch.executions) for batch in read.batches] == [(1, 1), (3, 1)]
    for phase in ("gather", "run", "encode"):
        assert read.counts[f"{phase}_ns"] == steps[f"{phase}_ns"] > 0
    assert read.counts["success_ns"] > read.counts["run_ns"]
    assert read.counts["last_inference_ms"] >= steps["last_inference_ms"] - 1000


def test_server_timing_is_that_of_the_steps_in_all(engine, load):
    """For those that ask."""
    load_parts(load)
    load_chain(engine, "same", "same")
    request = build_request("chain", {"input": nonce_rows(1, 2)})
    request.parameters["server_timing"].bool_param = True
    reply = pb.ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
    timing = {name: value.int64_param for name, value in reply.parameters.items()}
    assert timing["server_timing.compute_infer_ns"] == engine.statistics("same", 1)["run_ns"]
    assert timing["server_timing.batch_size"] == 2


def test_traces_tell_of_the_ensemble_and_of_its_steps(engine, load):
    """Each by its own name."""
    load_parts(load)
    load_chain(engine, "same", "same")
    engine.set_tracing({"": 1})
    infer(engine, "chain", {"input": nonce_rows(1, 1)}, request_id="mine")
    traces, lost = engine.take_traces()
    assert sorted((trace.model, trace.request_id) for trace in traces) == [
        ("chain", "mine"),
        ("same", "mine"),
        ("same", "mine"),
    ]
    assert lost == 0


def test_bool_of_any_value_is_true_in_every_step(engine, load):
    """Also when a step reads the caller's own bytes."""
    load(onnx_models.identity(TensorProto.BOOL, ("batch", 3)), "same", max_batch_size=4)
    tensors = [spec(name, -1, 3, datatype="BOOL") for name in ("input", "output")]
    load_ensemble(engine, "once", tensors[:1], tensors[1:], [echo("input", "output")], max_batch_size=4)
    message = encode_request("once", {"input": np.array([[False, True, True]])})
    assert (
        decode_reply(engine.infer(message.replace(b"\x00\x01\x01", b"\x00\x07\x01")))["output"].tobytes() == b"\0\1\1"
    )
