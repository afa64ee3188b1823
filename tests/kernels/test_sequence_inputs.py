"""kernels.sequence_inputs and sequence_states: what the server gives a model, and what it takes from it."""

import numpy as np
import onnx_models
import pytest
from engine_calls import refusal_of
from inference_messages import build_turn, decode_reply
from onnx import TensorProto

from kernels import status
from kernels.sequence_rules import SequenceControl, SequenceState

FLAGS = {
    TensorProto.INT32: np.array([0, 1], np.int32),
    TensorProto.FLOAT: np.array([-1, 2.5], np.float32),
    TensorProto.BOOL: np.array([False, True]),
}


def list_controls(element_type):
    """The three flags and the id of onnx_models.control_witness."""
    false, true = (value.tobytes() for value in FLAGS[element_type])
    flags = [SequenceControl(kind, kind, false, true) for kind in ("start", "ready", "end")]
    return [*flags, SequenceControl("id", "id")]


def see(engine, sequence, **options):
    """What the model `witness` was told with one request."""
    message = build_turn("witness", {"input": np.ones((1, 1), np.float32)}, sequence, **options).SerializeToString()
    reply = decode_reply(engine.infer(message))
    return [reply[f"{name}_seen"].ravel().tolist()[0] for name in ("start", "ready", "end", "id")]


@pytest.mark.parametrize("element_type", FLAGS)
def test_controls_tell_where_in_its_sequence_a_request_is(engine, loader, element_type):
    """With the values that the configuration gives for false and true."""
    controls = list_controls(element_type)
    loader.load(onnx_models.control_witness(element_type), "witness", max_batch_size=4, controls=controls)
    false, true = FLAGS[element_type].tolist()
    assert see(engine, 41, start=True) == [true, true, false, 41]
    assert see(engine, 41) == [false, true, false, 41]
    assert see(engine, 41, end=True) == [false, true, true, 41]
    assert see(engine, 42, start=True, end=True) == [true, true, true, 42]


@pytest.mark.parametrize(
    ("element_type", "given", "refused"),
    [
        (TensorProto.UINT64, [1, 2**63 - 1], ["one"]),
        (TensorProto.INT64, [1, -(2**63)], ["one"]),
        (TensorProto.UINT32, [1, 2**32 - 1], [2**32, -1, "one"]),
        (TensorProto.INT32, [1, -(2**31)], [2**31, "one"]),
        (TensorProto.STRING, ["one", "ä\0z", "x" * 128], [1]),
    ],
)
def test_id_reaches_the_model_whole_or_not_at_all(engine, loader, element_type, given, refused):
    """An id that was cut might be another sequence's."""
    model = onnx_models.control_witness(id_type=element_type)
    loader.load(model, "witness", max_batch_size=4, controls=list_controls(TensorProto.INT32))
    for sequence in given:
        seen = see(engine, sequence, start=True)[3]
        assert (seen.decode() if isinstance(seen, bytes) else seen) == sequence
    for sequence in refused:
        message = build_turn("witness", {"input": np.ones((1, 1), np.float32)}, sequence, start=True)
        code, text = refusal_of(engine, message.SerializeToString())
        assert code == status.INVALID
        assert "cannot be given to the model, which takes ids as" in text


def test_tensors_of_the_server_are_hidden_from_callers(engine, loader):
    """They can neither be given nor asked for, and no answer has them."""
    loader.load_sum()
    rows = np.ones((1, 2), np.int64)
    code, text = refusal_of(
        engine, build_turn("sum", {"input": rows, "state": rows}, 1, start=True).SerializeToString()
    )
    assert (code, text) == (status.INVALID, "input 'state' is unknown; the model has 'input'")
    request = build_turn("sum", {"input": rows}, 1, start=True, outputs=["new_state"])
    code, text = refusal_of(engine, request.SerializeToString())
    assert (code, text) == (status.INVALID, "requested output 'new_state' is unknown; the model has 'output'")
    code, text = refusal_of(engine, build_turn("sum", {}, 1, start=True).SerializeToString())
    assert (code, text) == (status.INVALID, "input 'input' is missing; got 0 of 1 inputs")
    reply = decode_reply(engine.infer(build_turn("sum", {"input": rows}, 1, start=True).SerializeToString()))
    assert list(reply) == ["output"]


def test_state_output_can_be_shown(engine, loader):
    """For whoever wants to look at it."""
    loader.load_sum(shown={"new_state"})
    request = build_turn("sum", {"input": np.ones((1, 2), np.int64)}, 1, start=True)
    assert list(decode_reply(engine.infer(request.SerializeToString()))) == ["new_state", "output"]


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT, TensorProto.STRING])
def test_state_may_grow(engine, loader, element_type):
    """Its shape is what the last run gave; rows of different lengths run in different batches."""
    is_text = element_type == TensorProto.STRING
    state = SequenceState("state", "new_state", (1, 0), b"")
    loader.load(onnx_models.appender(element_type), "append", max_batch_size=8, states=[state])

    def append(sequence, element, **options):
        rows = np.array([[element]], object if is_text else np.float32)
        message = build_turn("append", {"input": rows}, sequence, **options).SerializeToString()
        return decode_reply(engine.infer(message))["output"].tolist()[0]

    for sequence in range(1, 5):
        written = []
        for position in range(sequence + 3):
            element = f"{sequence}.{position}\0".encode() if is_text else float(sequence * 100 + position)
            written.append(element)
            assert append(sequence, element, start=position == 0) == written


def test_model_without_batch_keeps_sequences(engine, loader):
    """One request a run, the whole tensor is the state."""
    state = SequenceState("state", "new_state", (3,), bytes(12))
    loader.load(onnx_models.accumulator(TensorProto.FLOAT, (3,)), "whole", states=[state])
    for turn in range(1, 5):
        for sequence in (1, "two"):
            rows = {"input": np.full(3, len(str(sequence)), np.float32)}
            message = build_turn("whole", rows, sequence, start=turn == 1).SerializeToString()
            assert decode_reply(engine.infer(message))["output"].tolist() == [len(str(sequence)) * turn] * 3


def test_large_state_is_run_on_where_it_lies(engine, loader):
    """A batch of one binds it without a copy; what is run on is not what is written to."""
    width = 5000
    state = SequenceState("state", "new_state", (1, width), bytes(4 * width))
    loader.load(onnx_models.accumulator(TensorProto.FLOAT, ("batch", width)), "wide", max_batch_size=2, states=[state])
    row = np.arange(width, dtype=np.float32)[None]
    for turn in range(1, 6):
        message = build_turn("wide", {"input": row}, 1, start=turn == 1).SerializeToString()
        np.testing.assert_array_equal(decode_reply(engine.infer(message))["output"], row * turn)


def test_state_of_another_shape_than_its_input_fails_the_request(engine, loader):
    """A model whose output is not what its own input takes; the state stays what it was."""
    state = SequenceState("state", "new_state", (1, 2), bytes(8))
    narrowed = [(-1, 2), (-1, 1)]
    loader.load(onnx_models.appender(), "append", max_batch_size=1, states=[state], narrowed=narrowed)
    message = build_turn("append", {"input": np.ones((1, 1), np.float32)}, 1, start=True).SerializeToString()
    code, text = refusal_of(engine, message)
    assert code == status.INTERNAL
    assert "state output 'new_state' has a shape that input 'state' does not take" in text
