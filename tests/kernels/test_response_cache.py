"""kernels.response_cache: the same inputs get the same reply with their own id, and nothing else does."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import build_request, decode_reply, encode_request
from ways import every_way

from kernels import status
from kernels.engine import Engine
from kernels.session import Session
from service.pb.open_inference_pb2 import ModelInferResponse

CACHE_BYTES = 1 << 20
# Of what keeping a reply takes, beside its bytes.
ENTRY_BYTES = 200
TURNS = 3000


@pytest.fixture
def engine():
    """An engine with a cache, closed at the end."""
    made = Engine(workers=4, response_cache_bytes=CACHE_BYTES)
    yield made
    made.close()


@pytest.fixture
def dice(load):
    """A model that gives other numbers at each run, so that the same ones were kept."""
    load(onnx_models.dice(), "dice", max_batch_size=8, cache_replies=True)
    return "dice"


def counts_of(engine, name="dice", version=1):
    """Hits, misses and runs of a version."""
    counts = engine.statistics(name, version)
    return counts["cache_hits"], counts["cache_misses"], counts["executions"]


@every_way
def test_same_inputs_get_the_same_reply_and_are_run_once(engine, load):
    """The reply of the first run, to the last bit."""
    load(onnx_models.dice(), "dice", max_batch_size=8, cache_replies=True)
    rows = nonce_rows(1, 3)
    first = infer(engine, "dice", {"input": rows})["output"]
    for _ in range(5):
        assert infer(engine, "dice", {"input": rows})["output"].tobytes() == first.tobytes()
    assert counts_of(engine) == (5, 1, 1)


@every_way
def test_large_reply_written_in_place_is_kept(engine, load):
    """A batch of one whose output went straight into its reply."""
    load(onnx_models.dice(16384), "dice", max_batch_size=8, cache_replies=True)
    rows = nonce_rows(1, 1, 16384)
    first = infer(engine, "dice", {"input": rows})["output"]
    assert infer(engine, "dice", {"input": rows})["output"].tobytes() == first.tobytes()
    assert counts_of(engine) == (1, 1, 1)


@pytest.mark.parametrize("ids", [("", "a"), ("a", ""), ("first", "second"), ("x" * 127, "y" * 128), ("", "z" * 20_000)])
def test_each_reply_has_its_own_id(engine, dice, ids):
    """Of any length, or none; all else is the first one's."""
    replies = [
        ModelInferResponse.FromString(
            engine.infer(encode_request(dice, {"input": nonce_rows(1, 2)}, request_id=request_id))
        )
        for request_id in ids
    ]
    assert [reply.id for reply in replies] == list(ids)
    replies[1].id = replies[0].id
    assert replies[0] == replies[1]
    assert counts_of(engine) == (1, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows + np.float32(1),
        lambda rows: rows[:2],
        lambda rows: np.concatenate([rows, rows]),
        lambda rows: np.where(rows == rows[0, 0], -np.float32(0.0), rows),
    ],
)
def test_other_inputs_are_run(engine, dice, change):
    """Other values or rows, and the two zeros, which are equal but not the same."""
    rows = np.zeros((3, 4), np.float32)
    first = infer(engine, dice, {"input": rows})["output"]
    other = infer(engine, dice, {"input": change(rows)})["output"]
    assert other.tobytes() != first.tobytes()
    assert counts_of(engine) == (0, 2, 2)


def test_same_bytes_in_another_shape_are_run(engine, load):
    """Two requests whose tensors differ in their dimensions alone."""
    load(onnx_models.identity(shape=("batch", "width")), "same", max_batch_size=8, cache_replies=True)
    rows = nonce_rows(1, 2, 6)
    assert infer(engine, "same", {"input": rows})["output"].shape == (2, 6)
    assert infer(engine, "same", {"input": rows.reshape(3, 4)})["output"].shape == (3, 4)
    assert counts_of(engine, "same") == (0, 2, 2)


def test_other_outputs_are_run(engine, load):
    """A subset, and another order."""
    load(onnx_models.add_and_subtract(), "sums", max_batch_size=8, cache_replies=True)
    inputs = {name: np.ones((1, 3), np.float32) for name in ("a", "b")}
    wanted = [("sum",), ("difference",), ("sum", "difference"), ("difference", "sum")]
    for _ in range(2):
        for outputs in wanted:
            assert tuple(infer(engine, "sums", inputs, outputs=outputs)) == outputs
    assert counts_of(engine, "sums") == (4, 4, 4)


def test_typed_and_raw_contents_of_the_same_tensor_are_the_same(engine, dice):
    """How a tensor came is nobody's business."""
    rows = nonce_rows(1, 1)
    typed = build_request(dice, {"input": rows})
    typed.inputs[0].contents.fp32_contents.extend(rows.ravel().tolist())
    del typed.raw_input_contents[:]
    first = infer(engine, dice, {"input": rows})["output"]
    assert decode_reply(engine.infer(typed.SerializeToString()))["output"].tobytes() == first.tobytes()
    assert counts_of(engine) == (1, 1, 1)


def test_versions_do_not_share_replies(engine, load):
    """Nor does one that is loaded again find what it answered before, which is gone."""
    rows = {"input": nonce_rows(1, 1)}
    for version in (1, 2):
        load(onnx_models.dice(), "dice", version, max_batch_size=8, cache_replies=True)
    # So that their numbers, which begin alike, differ.
    infer(engine, "dice", {"input": nonce_rows(2, 1)}, version="2")
    answers = [infer(engine, "dice", rows, version=version)["output"].tobytes() for version in ("1", "2", "1", "2")]
    assert answers[:2] == answers[2:]
    assert answers[0] != answers[1]
    load(onnx_models.dice(), "dice", 1, max_batch_size=8, cache_replies=True)
    infer(engine, "dice", rows, version="1")
    assert counts_of(engine) == (0, 1, 1)
    assert engine.cache_usage()["entries"] == 3
    engine.unload("dice", 1)
    engine.unload("dice", 2)
    assert engine.cache_usage() == {"max_bytes": CACHE_BYTES, "bytes": 0, "entries": 0, "evictions": 0}


def test_failed_request_leaves_nothing(engine, load):
    """It is run again, and fails again."""
    load(onnx_models.picker(), "picker", max_batch_size=8, cache_replies=True)
    for _ in range(2):
        code, _ = refusal_of(engine, encode_request("picker", {"index": np.array([99], np.int64)}))
        assert code in (status.INVALID, status.INTERNAL)
    assert engine.cache_usage()["entries"] == 0
    assert engine.statistics("picker", 1)["failed"] == 2


def test_timing_is_never_taken_from_the_cache(engine, dice):
    """It says where the time of this request went."""
    request = build_request(dice, {"input": nonce_rows(1, 1)})
    request.parameters["server_timing"].bool_param = True
    for _ in range(2):
        reply = ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
        assert "server_timing.queue_ns" in reply.parameters
    assert counts_of(engine) == (0, 0, 2)


def test_model_that_does_not_ask_for_it_is_always_run(engine, load):
    """And has nothing counted."""
    load(onnx_models.dice(), "dice", max_batch_size=8)
    answers = {infer(engine, "dice", {"input": nonce_rows(1, 1)})["output"].tobytes() for _ in range(3)}
    assert len(answers) == 3
    assert counts_of(engine) == (0, 0, 3)


def test_engine_without_a_cache_runs_every_request(tmp_path):
    """Whatever the model asks for."""
    engine = Engine(workers=2)
    path = onnx_models.save(onnx_models.dice(), tmp_path, "dice")
    engine.load("dice", 1, Session(path), max_batch_size=8, cache_replies=True)
    answers = {infer(engine, "dice", {"input": nonce_rows(1, 1)})["output"].tobytes() for _ in range(3)}
    assert len(answers) == 3
    assert engine.cache_usage() == {"max_bytes": 0, "bytes": 0, "entries": 0, "evictions": 0}
    engine.close()


def test_hit_is_a_success_that_waited_and_was_not_run(engine, dice):
    """As Triton counts it: in success and queue, in no inference, run or batch."""
    for _ in range(3):
        infer(engine, dice, {"input": nonce_rows(1, 2)})
    read = engine.read_statistics(dice, 1)
    assert (read.counts["success"], read.counts["rows"], read.counts["executions"]) == (3, 2, 1)
    assert sum(read.histograms["request"]) == sum(read.histograms["queue"]) == 3
    assert sum(read.histograms["run"]) == 1
    assert read.counts["cache_hit_ns"] > 0
    assert read.counts["cache_miss_ns"] > 0


def test_bytes_are_bounded_and_the_least_recently_used_go_first(engine, load):
    """What is asked for again and again stays, however much else comes."""
    load(onnx_models.identity(shape=("batch", 1024)), "same", max_batch_size=8, cache_replies=True)
    favourite = {"input": nonce_rows(0, 1, 1024)}
    infer(engine, "same", favourite)
    room = CACHE_BYTES // (4096 + ENTRY_BYTES)
    for index in range(1, 3 * room):
        infer(engine, "same", {"input": nonce_rows(index, 1, 1024)})
        infer(engine, "same", favourite)
        assert engine.cache_usage()["bytes"] <= CACHE_BYTES
    usage = engine.cache_usage()
    assert counts_of(engine, "same") == (3 * room - 1, 3 * room, 3 * room)
    assert usage["entries"] + usage["evictions"] == 3 * room
    assert usage["bytes"] > CACHE_BYTES // 2


def test_reply_larger_than_the_cache_is_not_kept(engine, load):
    """It would push all others out."""
    load(onnx_models.identity(shape=("batch", CACHE_BYTES // 4)), "same", max_batch_size=8, cache_replies=True)
    for _ in range(2):
        infer(engine, "same", {"input": nonce_rows(1, 1, CACHE_BYTES // 4)})
    assert counts_of(engine, "same") == (0, 2, 2)
    assert engine.cache_usage()["entries"] == 0


def test_callers_side_by_side_get_their_own_answers(engine, load):
    """While entries come and go: a small cache, more inputs than it holds, a version that is loaded again meanwhile."""
    load(onnx_models.identity(shape=("batch", 512)), "same", max_batch_size=8, cache_replies=True)

    def ask(turn):
        value = random.Random(turn).randrange(1000)
        rows = nonce_rows(value, 1, 512)
        return infer(engine, "same", {"input": rows})["output"].tobytes() == rows.tobytes()

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, turn) for turn in range(TURNS)]
        for _ in range(5):
            load(onnx_models.identity(shape=("batch", 512)), "same", max_batch_size=8, cache_replies=True)
        assert all(answer.result() for answer in answers)
    assert engine.cache_usage()["bytes"] <= CACHE_BYTES
