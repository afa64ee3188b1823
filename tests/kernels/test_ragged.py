"""Ragged batches: elements end to end, the inputs that tell of them, and each caller's part of what comes of it."""

import numpy as np
import pytest
import uneven_models
from engine_calls import infer, refusal_of, submit_all
from inference_messages import DTYPES, build_request, decode_reply, encode_request
from onnx import TensorProto
from ways import every_way

from kernels import reference, status
from kernels.engine import Engine
from kernels.uneven_rules import BATCH_INPUT_KINDS, BatchInput, BatchOutput, RaggedInput
from tests.kernels.uneven_calls import UnevenLoader

SHAPES = [(1, 3), (1, 1), (1, 0), (1, 4)]


@pytest.fixture
def uneven(engine, tmp_path, way):
    """Loads models into the engine in the way of the test."""
    return UnevenLoader(engine, tmp_path, way)


def call_all(engine, model, calls):
    """Send requests, {context: inputs}, together; their outputs by context."""
    requests = {context: build_request(model, inputs) for context, inputs in calls.items()}
    replies = {}
    for call, code, payload in submit_all(engine, requests):
        assert code == status.OK, payload
        replies[call.context] = decode_reply(payload)
    return replies


def count_up(shape, first):
    """Numbers that no other request of a test has."""
    return (first * 100 + np.arange(np.prod(shape, dtype=int), dtype=np.float32)).reshape(shape)


@every_way
def test_requests_of_different_lengths_run_as_one(engine, uneven):
    """Each gets the sum of its own elements and their doubles; one that has none gets none."""
    uneven.load_sums()
    arrays = {index: count_up(shape, index) for index, shape in enumerate(SHAPES)}
    replies = call_all(engine, "sums", {index: {"values": array} for index, array in arrays.items()})
    for index, array in arrays.items():
        assert replies[index]["output"].tolist() == [array.sum()]
        np.testing.assert_array_equal(replies[index]["doubled"], 2 * array)
    assert engine.statistics("sums", 1)["executions"] == 1


@every_way
@pytest.mark.parametrize("count_type", [TensorProto.INT32, TensorProto.FLOAT], ids=["INT32", "FP32"])
def test_batch_inputs_tell_what_triton_tells(engine, uneven, count_type):
    """All six kinds, for a batch and for one request alone, as the twin has them."""
    dtype = np.int32 if count_type == TensorProto.INT32 else np.float32
    uneven.load(
        uneven_models.witness(count_type, columns=2),
        "witness",
        {"values": (-1, -1, 2), "same": (-1, -1, 2)},
        rules={
            "ragged": [RaggedInput("values", (-1, -1, 2))],
            "batch_inputs": [BatchInput(name, kind, "values") for name, kind in uneven_models.KINDS.items()],
            "batch_outputs": [BatchOutput("same", (-1, -1, 2), "values")],
        },
    )
    for shapes in ([(1, 3, 2), (1, 1, 2), (1, 2, 2)], [(1, 4, 2)]):
        calls = {index: {"values": count_up(shape, index)} for index, shape in enumerate(shapes)}
        replies = call_all(engine, "witness", calls)
        # In which order the requests ran is what the running totals say.
        order = sorted(replies, key=lambda index: replies[index]["ends_seen"][0])
        expected = {
            kind: reference.make_batch_input(kind, [shapes[index] for index in order], dtype)
            for kind in BATCH_INPUT_KINDS
        }
        for place, index in enumerate(order):
            seen = replies[index]
            np.testing.assert_array_equal(seen["same"], calls[index]["values"])
            assert seen["count_seen"] == expected["BATCH_ELEMENT_COUNT"][place]
            assert seen["ends_seen"] == expected["BATCH_ACCUMULATED_ELEMENT_COUNT"][place]
            assert seen["edges_seen"] == expected["BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"][place + 1]
            assert seen["most_seen"] == len(expected["BATCH_MAX_ELEMENT_COUNT_AS_SHAPE"])
            np.testing.assert_array_equal(seen["shapes_seen"][0], expected["BATCH_ITEM_SHAPE"][place])
            np.testing.assert_array_equal(
                seen["flat_seen"][0], expected["BATCH_ITEM_SHAPE_FLATTEN"].reshape(-1, 2)[place]
            )
            assert seen["count_seen"].dtype == dtype
    assert engine.statistics("witness", 1)["executions"] == 2


@every_way
@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_every_datatype_is_laid_end_to_end(engine, uneven, datatype):
    """Rows, empty ones and many elements, strings among them, come back as they went in."""
    uneven.load_flat(datatype)
    arrays = {}
    for index, shape in enumerate([(2, 3), (1, 0), (3, 1), (1, 1500)]):
        numbers = count_up(shape, index) % 120
        arrays[index] = (
            np.array([b"%d" % number for number in numbers.ravel()], object).reshape(shape)
            if datatype == "BYTES"
            else numbers.astype(DTYPES[datatype])
        )
    replies = call_all(engine, "flat", {index: {"values": array} for index, array in arrays.items()})
    for index, array in arrays.items():
        assert replies[index]["same"].shape == array.shape
        np.testing.assert_array_equal(replies[index]["same"], array)
    assert engine.statistics("flat", 1)["executions"] == 1


@every_way
def test_fixed_dimensions_are_laid_end_to_end_too(engine, uneven):
    """Only the shapes that the configuration allows are taken."""
    uneven.load_flat("FP32", (-1, -1, 3))
    array = count_up((2, 2, 3), 1)
    np.testing.assert_array_equal(infer(engine, "flat", {"values": array})["same"], array)
    code, text = refusal_of(engine, encode_request("flat", {"values": count_up((2, 3, 2), 1)}))
    assert (code, text) == (status.INVALID, "input 'values' has the wrong shape: expected [-1,-1,3], got [2,3,2]")


@every_way
def test_requested_outputs_do_not_move_those_of_others(engine, uneven):
    """One that leaves the scattered output out has elements in it all the same."""
    uneven.load_sums()
    requests = {
        index: build_request(
            "sums", {"values": count_up((1, index + 1), index)}, outputs=["output"] if index % 2 else ["doubled"]
        )
        for index in range(6)
    }
    for call, code, payload in submit_all(engine, requests):
        assert code == status.OK
        outputs, values = decode_reply(payload), count_up((1, call.context + 1), call.context)
        if call.context % 2:
            assert {name: array.tolist() for name, array in outputs.items()} == {"output": [values.sum()]}
        else:
            np.testing.assert_array_equal(outputs["doubled"], 2 * values)
    assert engine.statistics("sums", 1)["executions"] == 1


@every_way
def test_callers_do_not_see_what_the_server_makes(engine, uneven):
    """An input that it makes is unknown, as any that the model does not have."""
    uneven.load_sums(queue_delay_us=0)
    inputs = {"values": count_up((1, 2), 1), "edges": np.array([0, 2], np.int32)}
    assert refusal_of(engine, encode_request("sums", inputs)) == (
        status.INVALID,
        "input 'edges' is unknown; the model has 'values'",
    )


@every_way
def test_output_by_rows_of_a_request_of_several_rows_is_its_own_error(engine, uneven):
    """The model sums requests, not rows: what has two rows fails alone, and says why."""
    uneven.load_sums()
    requests = {
        rows: build_request("sums", {"values": count_up((rows, 3), rows)}, request_id=str(rows)) for rows in (1, 2)
    }
    outcome = {call.context: (code, payload) for call, code, payload in submit_all(engine, requests)}
    assert outcome[1][0] == status.OK
    assert decode_reply(outcome[1][1])["output"].tolist() == [count_up((1, 3), 1).sum()]
    assert outcome[2][0] == status.INTERNAL
    assert "output 'output' has a first dimension of 1 for a batch of 2 rows" in outcome[2][1]
    assert "batch_output" in outcome[2][1]


@every_way
def test_scattered_output_of_other_size_is_an_error(engine, uneven):
    """Of a model that does not give each element one back, nobody gets a wrong slice."""
    uneven.load(
        uneven_models.flat_identity("FP32"),
        "flat",
        {"values": (-1, -1), "same": (-1, -1, 2)},
        rules={
            "ragged": [RaggedInput("values", (-1, -1))],
            "batch_outputs": [BatchOutput("same", (-1, -1, 2), "values")],
        },
        queue_delay_us=0,
    )
    code, text = refusal_of(engine, encode_request("flat", {"values": count_up((1, 3), 1)}))
    assert code == status.INTERNAL
    assert text == ("output 'same' has 3 elements; by its batch_output and the shapes of input 'values' it must have 6")


def test_cached_reply_is_of_the_same_shape(tmp_path):
    """Two requests with the same bytes in other shapes have two answers."""
    engine = Engine(response_cache_bytes=1 << 20)
    UnevenLoader(engine, tmp_path).load_flat("FP32", (-1, -1, -1), cache_replies=True, queue_delay_us=0)
    for shape in ((1, 2, 3), (1, 3, 2), (1, 2, 3), (2, 1, 3)):
        assert infer(engine, "flat", {"values": count_up(shape, 1)})["same"].shape == shape
    assert engine.cache_usage()["entries"] == 3
    engine.close()


def test_ragged_model_runs_inline_where_all_do(tmp_path):
    """Its largest batch cannot be measured, and need not be."""
    engine = Engine(inline="always")
    UnevenLoader(engine, tmp_path).load_sums()
    replies = call_all(engine, "sums", {index: {"values": count_up((1, index), index)} for index in range(1, 7)})
    assert all(replies[index]["output"] == count_up((1, index), index).sum() for index in replies)
    engine.close()


WRONG_RULES = {
    "no such input": ({"ragged": [RaggedInput("nobody", (-1, -1))]}, "no input 'nobody'"),
    "given twice": ({"ragged": [RaggedInput("values", (-1, -1))] * 2}, "given twice"),
    "no batch": ({"ragged": [RaggedInput("values", (2, -1))]}, "expected an open batch"),
    "made and ragged": (
        {
            "ragged": [RaggedInput("values", (-1, -1))],
            "batch_inputs": [BatchInput("values", "BATCH_ELEMENT_COUNT", "edges")],
        },
        "cannot be made and be something else",
    ),
    "of itself": ({"batch_inputs": [BatchInput("edges", "BATCH_ELEMENT_COUNT", "edges")]}, "something else"),
    "made twice": ({"batch_inputs": [BatchInput("edges", "BATCH_ELEMENT_COUNT", "values")] * 2}, "something else"),
    "of one that is made": (
        {
            "batch_inputs": [
                BatchInput("edges", "BATCH_ELEMENT_COUNT", "values"),
                BatchInput("values", "BATCH_ELEMENT_COUNT", "edges"),
            ]
        },
        "'edges' is not given by every request",
    ),
    "one that is made of it": (
        {
            "batch_inputs": [
                BatchInput("edges", "BATCH_ELEMENT_COUNT", "values"),
                BatchInput("values", "BATCH_ELEMENT_COUNT", "state"),
            ]
        },
        "input 'values' cannot be made and be something else",
    ),
    "rank": ({"batch_inputs": [BatchInput("edges", "BATCH_ITEM_SHAPE", "values")]}, "with 2 dimensions"),
    "open dimension": (
        {
            "ragged": [RaggedInput("values", (-1, -1))],
            "batch_outputs": [BatchOutput("doubled", (-1, 2, -1), "values")],
        },
        "is open in dimension 2",
    ),
    "no interface": ({"ragged": [RaggedInput("values", (-1, -1))]}, "need an interface"),
    "ratio": ({"max_ratio": 0.5}, "max_ratio at least 1"),
    "multiple": ({"multiple": 0}, "multiple must be from 1"),
}


@pytest.mark.parametrize("wrong", WRONG_RULES)
def test_rules_that_do_not_fit_the_model_are_refused(uneven, wrong):
    """Before anything is served by them."""
    rules, reason = WRONG_RULES[wrong]
    with pytest.raises(ValueError, match=reason):
        uneven.load(uneven_models.ragged_accumulator(), "sums", rules=rules)


def test_version_without_batches_has_no_uneven_ones(uneven):
    """One request at a time is never ragged."""
    with pytest.raises(ValueError, match="need max_batch_size > 0"):
        uneven.load_sums(max_batch_size=0, queue_delay_us=0)


@every_way
def test_reshaped_request_is_told_of_as_the_model_knows_it(engine, uneven):
    """Callers give pairs, batch inputs tell of two rows of them, and what is scattered comes back in pairs."""
    item = (-1, 2, -1)
    uneven.load(
        uneven_models.witness(columns=2),
        "witness",
        {"values": (-1, -1, 2), "same": (-1, -1, 2)},
        rules={
            "ragged": [RaggedInput("values", item)],
            "batch_inputs": [BatchInput(name, kind, "values") for name, kind in uneven_models.KINDS.items()],
            "batch_outputs": [BatchOutput("same", item, "values")],
        },
    )
    calls = {length: {"values": count_up((1, length, 2), length)} for length in (1, 3)}
    for length, seen in call_all(engine, "witness", calls).items():
        np.testing.assert_array_equal(seen["same"], calls[length]["values"])
        assert seen["shapes_seen"].tolist() == [[2, length]]
        assert seen["count_seen"].tolist() == [2 * length]
    assert engine.statistics("witness", 1)["executions"] == 1
