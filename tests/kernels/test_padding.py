"""Padded batches: requests of different lengths in one run, each with its own part of what comes of it."""

import numpy as np
import pytest
import uneven_models
from engine_calls import infer, refusal_of, submit_all
from inference_messages import DTYPES, build_request, decode_reply, encode_request
from ways import every_way

from kernels import reference, status
from kernels.engine import Engine
from kernels.queue_options import QueueOptions
from kernels.uneven_rules import PaddedInput
from tests.kernels.uneven_calls import UnevenLoader

LENGTHS = {1: 3, 2: 5, 3: 4, 4: 5}


@pytest.fixture
def uneven(engine, tmp_path, way):
    """Loads models into the engine in the way of the test."""
    return UnevenLoader(engine, tmp_path, way)


def make_ids(rows, length, first):
    """Ids that no other request of a test has, and a mask that leaves all of them."""
    ids = first * 100 + np.arange(rows * length).reshape(rows, length)
    return {"ids": ids, "mask": np.ones((rows, length), np.float32)}


def check_encoded(inputs, outputs):
    """What the model makes of a request alone."""
    ids = inputs["ids"]
    np.testing.assert_array_equal(outputs["tokens"], ids + 1)
    np.testing.assert_array_equal(outputs["pairs"], ids[:, :, None] * ids[:, None, :])
    np.testing.assert_array_equal(outputs["pooled"], (ids * inputs["mask"]).sum(axis=1, dtype=np.float32))


def call_all(engine, calls, model="encoder"):
    """Send requests, {context: inputs}, together; their outputs by context."""
    requests = {context: build_request(model, inputs) for context, inputs in calls.items()}
    replies = {}
    for call, code, payload in submit_all(engine, requests):
        assert code == status.OK, payload
        replies[call.context] = decode_reply(payload)
    return replies


@every_way
@pytest.mark.parametrize(("multiple", "longest"), [(1, 5), (8, 8), (5, 5)])
def test_requests_of_different_lengths_run_as_one(engine, uneven, multiple, longest):
    """Rows are as long as the longest, rounded up; outputs of that length are cropped in each of its dimensions."""
    uneven.load_encoder({"multiple": multiple})
    calls = {index: make_ids(1 + index % 2, length, index) for index, length in LENGTHS.items()}
    replies = call_all(engine, calls)
    for index, inputs in calls.items():
        check_encoded(inputs, replies[index])
        assert set(replies[index]["length_seen"]) == {longest}
    assert engine.statistics("encoder", 1)["executions"] == 1


@every_way
def test_request_alone_is_padded_to_the_multiple_alone(engine, uneven):
    """Its own length is what it gets back, an empty one too."""
    uneven.load_encoder({"multiple": 4}, queue_delay_us=0)
    for length in (0, 1, 4, 6):
        inputs = make_ids(2, length, 1)
        outputs = infer(engine, "encoder", inputs)
        check_encoded(inputs, outputs)
        assert set(outputs["length_seen"]) == {-(-length // 4) * 4}


FILLERS = {"BOOL": True, "FP32": -np.inf, "FP64": 0.5, "FP16": 2.0, "BF16": 3.0}


@every_way
@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_is_padded_with_its_filler(engine, uneven, datatype):
    """As the twin pads it, in two dimensions; the output whose dimensions have other names shows the whole batch."""
    dtype = np.dtype(DTYPES[datatype])
    filler = dtype.type(FILLERS.get(datatype, 7))
    uneven.load(
        uneven_models.padded_identity(datatype, ("batch", "height", 2, "width")),
        "same",
        rules={"padded": [PaddedInput("input", filler.tobytes())], "max_ratio": 100.0},
    )
    shapes = {1: (1, 3, 2, 1), 2: (2, 1, 2, 4), 3: (1, 0, 2, 2)}
    arrays = {index: np.arange(np.prod(shape)).reshape(shape).astype(dtype) for index, shape in shapes.items()}
    replies = call_all(engine, {index: {"input": array} for index, array in arrays.items()}, "same")
    for index, array in arrays.items():
        assert replies[index]["same"].tobytes() == array.tobytes()
        assert replies[index]["same"].shape == array.shape
    # Rows in any order: each is the same as the twin's.
    whole = {
        index: reference.pad_rows([array, *arrays.values()], filler)[: len(array)] for index, array in arrays.items()
    }
    for index, array in arrays.items():
        assert replies[index]["whole"].shape == (len(array), 3, 2, 4)
        assert replies[index]["whole"].tobytes() == whole[index].tobytes()
    assert engine.statistics("same", 1)["executions"] == 1


@every_way
def test_texts_are_cropped_as_numbers_are(engine, uneven):
    """Each caller gets its own, of any length."""
    padded = [PaddedInput("ids", (-1).to_bytes(8, "little", signed=True))]
    uneven.load(uneven_models.texts_of(), "texts", rules={"padded": padded})
    calls = {length: {"ids": 10**length + np.arange(2 * length).reshape(2, length)} for length in (2, 3, 4)}
    for length, outputs in call_all(engine, calls, "texts").items():
        assert outputs["texts"].tolist() == [[b"%d" % number for number in row] for row in calls[length]["ids"]]
    assert engine.statistics("texts", 1)["executions"] == 1


@every_way
@pytest.mark.parametrize(("ratio", "runs"), [(1.0, 3), (2.0, 2), (10.0, 1)])
def test_padding_is_bounded_by_the_ratio(engine, uneven, ratio, runs):
    """Lengths 2, 3 and 40: with 1 nobody is padded, with 2 the first two go together, with 10 all."""
    uneven.load_encoder({"max_ratio": ratio})
    calls = {length: make_ids(1, length, length) for length in (2, 3, 40)}
    for length, outputs in call_all(engine, calls).items():
        check_encoded(calls[length], outputs)
    assert engine.statistics("encoder", 1)["executions"] == runs


def test_preferred_sizes_count_those_that_go_together(engine, uneven):
    """A request that is too long for the others is not among those that make up a preferred size."""
    uneven.load_encoder(queueing=QueueOptions(preferred_batch_sizes=(3,)), queue_delay_us=5_000_000)
    calls = {index: make_ids(1, length, index) for index, length in enumerate((3, 50, 4, 5, 52, 54))}
    replies = call_all(engine, calls)
    for index, inputs in calls.items():
        check_encoded(inputs, replies[index])
        assert set(replies[index]["length_seen"]) <= {5, 54}
    assert engine.read_statistics("encoder", 1).dispatches["preferred"] == 2


@every_way
def test_inputs_of_one_length_must_have_it(engine, uneven):
    """Padded, they would look as if they had."""
    uneven.load_encoder(queue_delay_us=0)
    inputs = make_ids(1, 4, 1) | {"mask": np.ones((1, 3), np.float32)}
    code, text = refusal_of(engine, encode_request("encoder", inputs))
    assert code == status.INVALID
    assert text == (
        "input 'mask' has 3 elements in dimension 1; expected 4, as input 'ids' has in dimension 1, which the model "
        "gives the same name"
    )


@every_way
def test_large_request_alone_is_whole(engine, uneven):
    """Where nothing is padded, tensors are read in the message as ever, and written whole."""
    uneven.load_encoder({"uncropped": {"pairs"}}, queue_delay_us=0, max_batch_size=2)
    inputs = make_ids(2, 1000, 1)
    outputs = infer(engine, "encoder", inputs, outputs=["tokens", "pooled"])
    np.testing.assert_array_equal(outputs["tokens"], inputs["ids"] + 1)


@every_way
def test_output_that_is_not_to_be_cropped_is_whole(engine, uneven):
    """It is as long as the batch."""
    uneven.load_encoder({"uncropped": {"pairs"}, "multiple": 8}, queue_delay_us=0)
    outputs = infer(engine, "encoder", make_ids(1, 3, 1))
    assert (outputs["tokens"].shape, outputs["pairs"].shape) == ((1, 3), (1, 8, 8))


def test_failing_request_does_not_fail_those_that_it_is_padded_with(engine, uneven):
    """Each is run alone then, without padding."""
    uneven.load(uneven_models.table_rows(), "table", rules={"padded": [PaddedInput("index", bytes(8))]})
    calls = {1: [1, 2, 3], 2: [4, 99], 3: [5]}
    requests = {index: build_request("table", {"index": np.array([row])}) for index, row in calls.items()}
    outcome = {call.context: (code, payload) for call, code, payload in submit_all(engine, requests)}
    assert outcome[2][0] != status.OK
    for index in (1, 3):
        assert decode_reply(outcome[index][1])["output"].tolist() == [[number * 1.5 for number in calls[index]]]


def test_model_that_does_not_keep_to_its_names_gives_no_wrong_slice(engine, uneven):
    """Its output is of another length than its input of that name, which only a run can tell."""
    uneven.load(
        uneven_models.shortener(), "short", rules={"padded": [PaddedInput("input", bytes(4))]}, queue_delay_us=0
    )
    code, text = refusal_of(engine, encode_request("short", {"input": np.zeros((1, 5), np.float32)}))
    assert code == status.INTERNAL
    assert text.startswith("output 'output' has 4 elements in dimension 1 for inputs that are padded to 5: ")
    assert "uncropped_outputs" in text


def test_cached_reply_is_of_the_own_length(tmp_path):
    """Whatever it was padded to when it was made."""
    engine = Engine(response_cache_bytes=1 << 20)
    UnevenLoader(engine, tmp_path).load_encoder(cache_replies=True, rules=())
    calls = {index: make_ids(1, length, 1) for index, length in LENGTHS.items()}
    for _ in range(2):
        for index, outputs in call_all(engine, calls).items():
            check_encoded(calls[index], outputs)
    # Two of the four are equal, and ran side by side.
    assert engine.statistics("encoder", 1)["executions"] == 1
    assert engine.cache_usage()["entries"] == 3
    engine.close()


def test_padded_model_runs_inline_where_all_do(tmp_path):
    """On the thread that brings the requests."""
    engine = Engine(inline="always")
    UnevenLoader(engine, tmp_path).load_encoder()
    calls = {index: make_ids(1, length, index) for index, length in LENGTHS.items()}
    for index, outputs in call_all(engine, calls).items():
        check_encoded(calls[index], outputs)
    engine.close()


WRONG_RULES = {
    "no open dimension": ("tiny", [PaddedInput("input", bytes(4))], "have an open dimension"),
    "texts": ("texts", [PaddedInput("input", b"")], "must be of numbers"),
    "filler": ("encoder", [PaddedInput("ids", bytes(4))], "filler is not one element"),
    "twice": ("encoder", [PaddedInput("ids", bytes(8))] * 2, "given twice"),
    "neighbour": ("encoder", [PaddedInput("ids", bytes(8))], "input 'mask' has the length 'length' too"),
}


@pytest.mark.parametrize("wrong", WRONG_RULES)
def test_rules_that_do_not_fit_the_model_are_refused(uneven, wrong):
    """Before anything is served by them."""
    name, padded, reason = WRONG_RULES[wrong]
    models = {
        "tiny": uneven_models.padded_identity("FP32", ("batch", 4)),
        "texts": uneven_models.padded_identity("BYTES"),
        "encoder": uneven_models.encoder(),
    }
    with pytest.raises(ValueError, match=reason):
        uneven.load(models[name], name, rules={"padded": padded})


@every_way
def test_reshaped_inputs_are_padded_as_the_model_knows_them(engine, uneven):
    """Callers see rows, the model columns of one element; what is cropped comes back as rows."""
    uneven.load(
        uneven_models.padded_identity("FP32", ("batch", 1, "length")),
        "same",
        {"input": (-1, -1), "same": (-1, -1), "whole": (-1, -1)},
        rules={"padded": [PaddedInput("input", np.float32(9).tobytes())]},
    )
    calls = {length: {"input": np.arange(2 * length, dtype=np.float32).reshape(2, length)} for length in (2, 3)}
    for length, outputs in call_all(engine, calls, "same").items():
        np.testing.assert_array_equal(outputs["same"], calls[length]["input"])
        assert outputs["whole"].shape == (2, 3)
    assert engine.statistics("same", 1)["executions"] == 1


def test_what_rounding_adds_counts_among_the_bytes_that_wait(tmp_path):
    """A request of one element does not cost its sender, but a batch, a million."""
    engine = Engine(max_pending_bytes=1 << 20)
    UnevenLoader(engine, tmp_path).load(
        uneven_models.padded_identity("FP32", ("batch", "height", "width")),
        "same",
        rules={"padded": [PaddedInput("input", bytes(4))], "multiple": 1024},
        queue_delay_us=0,
    )
    code, text = refusal_of(engine, encode_request("same", {"input": np.ones((1, 1, 1), np.float32)}))
    assert code == status.EXHAUSTED
    assert "at most 1048576 may wait" in text
    assert infer(engine, "same", {"input": np.ones((1, 0, 1), np.float32)}, outputs=["same"])["same"].size == 0
    assert engine.pending_bytes == 0
    engine.close()


def test_padded_model_that_does_not_batch_is_told_so(engine, uneven):
    """As any other: nothing of it is ragged."""
    uneven.load(uneven_models.rowless(), "half", rules={"padded": [PaddedInput("input", bytes(4))]}, queue_delay_us=0)
    code, text = refusal_of(engine, encode_request("half", {"input": np.zeros((2, 5), np.float32)}))
    assert code == status.INTERNAL
    assert "has a first dimension of 1 for a batch of 2 rows: the model does not batch" in text
