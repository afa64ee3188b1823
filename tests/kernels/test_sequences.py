"""kernels.sequences: requests of one sequence run on the state that the one before them left."""

import numpy as np
import onnx_models
import pytest
from engine_calls import refusal_of
from inference_messages import build_turn, decode_reply, encode_request
from sequence_calls import SUM_STATE, add, encode_addend

from kernels import status
from tests.kernels import ways


@ways.every_way
def test_state_is_handed_from_request_to_request(engine, loader):
    """Each sequence has its own; a text and a number of the same digits are two ids."""
    loader.load_sum()
    for sequence in (7, "7", 2**63 - 1, -1, "ä" * 64):
        assert add(engine, sequence, 1, start=True) == [[1, -1]]
    for sequence in (7, "7", 2**63 - 1, -1, "ä" * 64):
        assert add(engine, sequence, 10) == [[11, -11]]
        assert add(engine, sequence, 100, end=True) == [[111, -111]]
    assert engine.statistics("sum", 1)["sequences"] == 0


def test_sequence_begins_with_its_initial_state(engine, loader):
    """Zeros are only one choice."""
    loader.load_sum(states=[SUM_STATE._replace(initial=np.array([5, 7], np.int64).tobytes())])
    assert add(engine, 1, 1, start=True) == [[6, 6]]
    assert add(engine, 1, 1) == [[7, 5]]


def test_start_on_a_live_sequence_begins_it_anew(engine, loader):
    """Whatever the state was."""
    loader.load_sum()
    add(engine, 1, 3, start=True)
    assert add(engine, 1, 4, start=True) == [[4, -4]]
    assert add(engine, 1, 1) == [[5, -5]]
    assert engine.statistics("sum", 1)["sequences"] == 1


def test_single_request_is_a_whole_sequence(engine, loader):
    """It begins and ends with it, as often as one likes."""
    loader.load_sum(slots=1)
    for _ in range(3):
        assert add(engine, "once", 2, start=True, end=True) == [[2, -2]]


def test_version_that_keeps_sequences_has_no_cached_replies(loader):
    """The same inputs get another answer at another place of a sequence."""
    with pytest.raises(ValueError, match="cache_replies is not for a version that keeps sequences"):
        loader.load_sum(cache_replies=True)


@pytest.mark.parametrize("sequence", [0, ""])
def test_request_without_a_sequence_is_refused(engine, loader, sequence):
    """0 and the empty text are no ids."""
    loader.load_sum()
    code, text = refusal_of(engine, encode_addend(sequence, 1, start=True))
    assert code == status.INVALID
    assert (
        "expected parameter 'sequence_id', a number other than 0 or a text, since model 'sum' keeps sequences" in text
    )
    without = encode_request("sum", {"input": np.zeros((1, 2), np.int64)})
    assert refusal_of(engine, without) == (code, text)


def test_unknown_sequence_needs_a_start(engine, loader):
    """One that has ended is as unknown as one that never was."""
    loader.load_sum()
    expected = "sequence 5 of model 'sum' is not under way; expected sequence_start with its first request"
    assert refusal_of(engine, encode_addend(5, 1)) == (status.INVALID, expected)
    add(engine, 5, 1, start=True, end=True)
    assert refusal_of(engine, encode_addend(5, 1)) == (status.INVALID, expected)
    assert "sequence 'five' of model" in refusal_of(engine, encode_addend("five", 1, end=True))[1]
    assert engine.statistics("sum", 1)["refused"] == 3


def test_request_of_several_rows_is_refused(engine, loader):
    """A sequence is one row of a batch."""
    loader.load_sum()
    message = build_turn("sum", {"input": np.zeros((2, 2), np.int64)}, 1, start=True).SerializeToString()
    code, text = refusal_of(engine, message)
    assert (code, text) == (
        status.INVALID,
        "the request has a batch of 2 rows; expected 1 from a request of a sequence",
    )


@pytest.mark.parametrize(
    ("name", "field", "value", "text"),
    [
        ("sequence_id", "bool_param", True, "parameter 'sequence_id' is neither an int64 nor a string"),
        ("sequence_id", "double_param", 1.0, "parameter 'sequence_id' is neither an int64 nor a string"),
        ("sequence_id", "string_param", "x" * 129, "parameter 'sequence_id' has 129 bytes; expected at most 128"),
        ("sequence_start", "int64_param", 1, "parameter 'sequence_start' is not a bool"),
        ("sequence_end", "string_param", "true", "parameter 'sequence_end' is not a bool"),
    ],
)
def test_parameter_of_wrong_type_is_refused(engine, loader, name, field, value, text):
    """By its name."""
    loader.load_sum()
    request = build_turn("sum", {"input": np.zeros((1, 2), np.int64)}, 1, start=True)
    setattr(request.parameters[name], field, value)
    assert refusal_of(engine, request.SerializeToString()) == (status.INVALID, text)


def test_unsigned_id_is_an_id(engine, loader):
    """One of the upper half, too."""
    loader.load_sum()
    request = build_turn("sum", {"input": np.ones((1, 2), np.int64)}, 1, start=True)
    request.parameters["sequence_id"].uint64_param = 2**64 - 1
    assert decode_reply(engine.infer(request.SerializeToString()))["output"].tolist() == [[1, 1]]
    assert add(engine, -1, 1) == [[2, 0]]


def test_model_without_sequences_takes_no_notice_of_their_parameters(engine, load):
    """As with Triton."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    rows = {"input": np.ones((2, 4), np.float32)}
    request = build_turn("same", rows, 5, end=True)
    request.parameters["sequence_start"].string_param = "no bool"
    assert decode_reply(engine.infer(request.SerializeToString()))["output"].shape == (2, 4)


def test_ids_of_any_text_are_told_apart(engine, loader):
    """Hundreds of them at a time, of any length."""
    loader.load_sum(slots=600)
    names = [f"{'x' * (index % 17)}{index}" for index in range(300)] + list(range(1, 301))
    for value, name in enumerate(names):
        add(engine, name, value, start=True)
    for value, name in enumerate(names):
        assert add(engine, name, 1) == [[value + 1, -value - 1]]
    assert engine.statistics("sum", 1)["sequences"] == 600
