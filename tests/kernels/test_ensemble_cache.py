"""kernels.cached_tensors and kernels.cached_answers: steps that are answered from the cache, and ensembles that are."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from ensemble_graphs import chain, echo, load_chain, load_ensemble, spec, step
from inference_messages import DTYPES, build_request, decode_reply, encode_request

from kernels import status
from kernels.engine import Engine
from service.pb.open_inference_pb2 import ModelInferResponse

ROWS = {"input": nonce_rows(1, 2)}


@pytest.fixture
def engine():
    """An engine with a cache, closed at the end."""
    made = Engine(workers=4, response_cache_bytes=8 << 20)
    yield made
    made.close()


def load_dice(load, name="dice", version=1, *, columns=4, cache_replies=True):
    """A model that gives other numbers at each run, so that the same ones were kept."""
    load(onnx_models.dice(columns), name, version, max_batch_size=8, cache_replies=cache_replies)


def counts_of(engine, name, version=1):
    """Hits, misses, runs and successes of a version."""
    counts = engine.statistics(name, version)
    return counts["cache_hits"], counts["cache_misses"], counts["executions"], counts["success"]


def test_step_is_answered_by_the_reply_to_the_same_inputs(engine, load):
    """What comes before it and behind it runs anew."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    load_dice(load)
    load_chain(engine, "same", "dice", "same")
    answers = {infer(engine, "chain", ROWS)["output"].tobytes() for _ in range(4)}
    assert len(answers) == 1
    assert infer(engine, "chain", {"input": nonce_rows(2, 2)})["output"].tobytes() not in answers
    assert counts_of(engine, "dice") == (3, 2, 2, 5)
    assert counts_of(engine, "same") == (0, 0, 10, 10)
    assert counts_of(engine, "chain") == (0, 0, 5, 5)
    assert engine.pending_bytes == 0


@pytest.mark.parametrize("columns", [4, 16384])
def test_steps_and_callers_share_what_is_kept(engine, load, columns):
    """Whoever asked first, with the id of each caller; large outputs too, which are run on where they lie."""
    load_dice(load, columns=columns)
    load(onnx_models.identity(shape=("batch", columns)), "same", max_batch_size=8)
    load_chain(engine, "dice", "same", width=columns)
    for index, models in enumerate((("chain", "dice"), ("dice", "chain"))):
        rows = {"input": nonce_rows(index, 1, columns)}
        made = []
        for model in models:
            message = encode_request(model, rows, outputs=["output"], request_id=model)
            reply = ModelInferResponse.FromString(engine.infer(message))
            assert (reply.model_name, reply.id) == (model, model)
            made.append(reply.raw_output_contents[0])
        assert made[0] == made[1]
    assert counts_of(engine, "dice") == (2, 2, 2, 4)


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_every_datatype_and_shape_comes_back_from_the_cache(engine, load, datatype):
    """Of several outputs of a step within a step, each of any size: none, one, many."""
    element_type = onnx_models.ELEMENT_TYPES[datatype]
    load(onnx_models.identity(element_type, ("batch", "width")), "same", max_batch_size=8, cache_replies=True)
    tensors = [spec(name, -1, -1, datatype=datatype) for name in ("input", "other", "output", "second")]
    steps = [echo("input", "output"), echo("other", "second")]
    load_ensemble(engine, "inner", tensors[:2], tensors[2:], steps, max_batch_size=8, cache_replies=True)
    names = {"input": "input", "other": "other"}, {"output": "output", "second": "second"}
    load_ensemble(engine, "outer", tensors[:2], tensors[2:], [step("inner", *names)], max_batch_size=8)
    for width in (0, 1, 3, 700):
        given = {name: make_array(datatype, (2, width), name) for name in ("input", "other")}
        for _ in range(3):
            made = infer(engine, "outer", given)
            assert made["output"].tolist() == given["input"].tolist()
            assert made["second"].tolist() == given["other"].tolist()
    assert counts_of(engine, "inner") == (8, 4, 4, 12)


def make_array(datatype, shape, name):
    """Elements that differ by place and name."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        made = np.empty(count, object)
        made[:] = [name.encode() * (index % 5) + b"\0" for index in range(count)]
        return made.reshape(shape)
    elements = np.arange(count) % (2 if datatype == "BOOL" else 100)
    return elements.astype(DTYPES[datatype]).reshape(shape)


def test_scalar_comes_back_from_the_cache(engine, load):
    """A shape without a dimension has no field on the wire."""
    load(onnx_models.scalar_doubler(), "doubler", cache_replies=True)
    load_ensemble(engine, "twice", [spec("input")], [spec("output")], chain("doubler", "doubler"))
    for _ in range(3):
        made = infer(engine, "twice", {"input": np.array(3, np.float32)})["output"]
        assert (made.shape, float(made)) == ((), 12.0)
    assert counts_of(engine, "doubler") == (4, 2, 2, 6)


def test_long_chain_of_cached_steps_needs_no_deep_stack(engine, load):
    """Thousands of steps that are all answered at once, on threads with little room."""
    load(onnx_models.identity(), "same", max_batch_size=8, cache_replies=True)
    load_chain(engine, "same", name="inner")
    load_chain(engine, *["same", "inner"] * 1500)
    given = nonce_rows(3, 1)
    for _ in range(3):
        np.testing.assert_array_equal(infer(engine, "chain", {"input": given})["output"], given)
    assert counts_of(engine, "same")[1] == 1
    assert engine.pending_bytes == 0


def test_ensemble_is_answered_by_its_own_earlier_reply(engine, load):
    """Without a step; what is asked otherwise is run."""
    load_dice(load, cache_replies=False)
    load_chain(engine, "dice", "dice", cache_replies=True)
    assert len({infer(engine, "chain", ROWS)["output"].tobytes() for _ in range(3)}) == 1
    timed = build_request("chain", ROWS)
    timed.parameters["server_timing"].bool_param = True
    assert "server_timing.queue_ns" in ModelInferResponse.FromString(engine.infer(timed.SerializeToString())).parameters
    assert counts_of(engine, "chain") == (2, 1, 2, 4)
    assert counts_of(engine, "dice")[2] == 4


def test_ensembles_answer_ends_with_any_of_its_steps_versions(engine, load):
    """Also of a step within a step; what has nothing to do with it changes nothing."""
    load_dice(load, cache_replies=False)
    load_chain(engine, "dice", name="inner")
    load_chain(engine, "inner", name="outer", cache_replies=True)

    def ask():
        return infer(engine, "outer", ROWS)["output"].tobytes()

    first = ask()
    load(onnx_models.identity(), "unrelated")
    assert ask() == first
    load_dice(load, version=2, cache_replies=False)
    # Numbers of two runs of one kind begin alike: the second version's differ from the second run on.
    infer(engine, "dice", ROWS)
    second = ask()
    assert second != first
    assert ask() == second
    engine.unload("dice", 2)
    ask()
    assert counts_of(engine, "outer") == (2, 3, 3, 5)
    load_chain(engine, "inner", name="outer", cache_replies=True)
    ask()
    assert counts_of(engine, "outer") == (0, 1, 1, 1)
    assert engine.cache_usage()["entries"] == 1
    engine.unload("outer", 1)
    assert engine.cache_usage()["bytes"] == 0


def test_failed_step_and_failed_ensemble_leave_nothing(engine, load):
    """They are run again, and fail again."""
    load(onnx_models.picker(), "picker", max_batch_size=8, cache_replies=True)
    steps, index = [step("picker", {"index": "index"}, {"output": "output"})], spec("index", -1, datatype="INT64")
    load_ensemble(engine, "picking", [index], [spec("output", -1)], steps, max_batch_size=8, cache_replies=True)
    for _ in range(2):
        assert refusal_of(engine, encode_request("picking", {"index": np.array([99], np.int64)}))[0] == status.INVALID
    assert engine.cache_usage()["entries"] == 0
    assert engine.statistics("picker", 1)["failed"] == 2


def test_classes_of_an_ensemble_are_kept_as_such(engine, load):
    """Beside the elements."""
    load_dice(load, cache_replies=False)
    load_chain(engine, "dice", cache_replies=True)
    request = build_request("chain", ROWS, outputs=["output"])
    plain = engine.infer(request.SerializeToString())
    request.outputs[0].parameters["classification"].int64_param = 2
    classes = [engine.infer(request.SerializeToString()) for _ in range(2)]
    assert classes[0] == classes[1]
    assert decode_reply(classes[0])["output"].shape == (2, 2)
    assert engine.infer(build_request("chain", ROWS, outputs=["output"]).SerializeToString()) == plain
    assert counts_of(engine, "chain") == (2, 2, 2, 4)


def test_cached_step_takes_no_time_of_its_ensembles(engine, load):
    """Its run is not this request's."""
    load_dice(load)
    load_chain(engine, "dice")
    request = build_request("chain", ROWS)
    request.parameters["server_timing"].bool_param = True
    replies = [ModelInferResponse.FromString(engine.infer(request.SerializeToString())) for _ in range(2)]
    run_ns = [reply.parameters["server_timing.compute_infer_ns"].int64_param for reply in replies]
    assert run_ns[0] > 0
    assert run_ns[1] == 0
    assert engine.statistics("chain", 1)["run_ns"] == run_ns[0]


def test_callers_of_many_threads_get_their_own_from_cached_steps(engine, load):
    """While entries come and go."""
    load(onnx_models.identity(shape=("batch", 1024)), "same", max_batch_size=8, cache_replies=True)
    load_chain(engine, "same", "same", width=1024, cache_replies=True)

    def call(caller):
        for turn in range(150):
            rows = nonce_rows(turn % 20 + caller % 2, 1 + turn % 3, 1024)
            np.testing.assert_array_equal(infer(engine, "chain", {"input": rows})["output"], rows)

    with ThreadPoolExecutor(4) as threads:
        for caller in [threads.submit(call, index) for index in range(4)]:
            caller.result()
    assert engine.pending_bytes == 0
