"""kernels.engine with its batchers: everybody gets the reply to their own request, whatever happens to the others."""

import gc
import select
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from inference_messages import DTYPES, build_request, decode_reply, encode_request
from onnx import TensorProto

from kernels import reference, status
from kernels.completions import CompletionQueue
from kernels.engine import Engine, InferError
from kernels.session import Session

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}


def infer(engine, model, inputs, **options):
    """One request and its outputs."""
    version_hint = options.pop("version_hint", b"")
    return decode_reply(engine.infer(encode_request(model, inputs, **options), version_hint=version_hint))


def nonce_rows(index, rows, width=4):
    """Rows that no other index has."""
    return np.full((rows, width), index, np.float32) + np.arange(rows, dtype=np.float32)[:, None] / 1024


def refusal_of(engine, message, **options):
    """Code and text of a request that must fail."""
    with pytest.raises(InferError) as refusal:
        engine.infer(message, **options)
    return refusal.value.code, refusal.value.message


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_identity_returns_every_datatype(engine, load, datatype, rows):
    """Any bits, NaNs among them, come back as they went in; BOOL as 0 or 1."""
    load(onnx_models.identity(ONNX_TYPES[datatype], ("batch", 5)), "same", max_batch_size=64)
    raw = np.random.default_rng(rows).bytes(rows * 5 * np.dtype(DTYPES[datatype]).itemsize)
    array = np.frombuffer(raw, DTYPES[datatype]).reshape(rows, 5)
    if datatype == "BOOL":
        array = np.frombuffer(raw, np.uint8).reshape(rows, 5) % 2 == 1
    assert infer(engine, "same", {"input": array})["output"].tobytes() == array.tobytes()


def test_bool_of_any_value_is_true(engine, load):
    """A byte of 7 is true, and comes back as 1: no kernel sees a bool that is neither."""
    load(onnx_models.identity(TensorProto.BOOL, ("batch", 3)), "same", max_batch_size=4)
    message = encode_request("same", {"input": np.array([[False, True, True]])})
    reply = decode_reply(engine.infer(message.replace(b"\x00\x01\x01", b"\x00\x07\xff")))
    assert reply["output"].tobytes() == b"\x00\x01\x01"


def test_strings_return_with_nul_and_utf8(engine, load):
    """Strings of any bytes and any length, empty ones among them, merged from several requests."""
    load(onnx_models.identity(TensorProto.STRING, ("batch", 2)), "strings", max_batch_size=8, queue_delay_us=20_000)
    arrays = [
        np.array([[b"", b"\x00\x01\x00"], [b"x" * 100_000, "naïve".encode()]], dtype=object),
        np.array([[b"one", b""]], dtype=object),
        np.array([[b"\xff\xfe", b"two"], [b"", b""], [b"a", b"b"]], dtype=object),
    ]
    with ThreadPoolExecutor(3) as threads:
        replies = list(threads.map(lambda array: infer(engine, "strings", {"input": array})["output"], arrays))
    for array, reply in zip(arrays, replies, strict=True):
        assert reply.tolist() == array.tolist()


def test_batch_of_many_callers_matches_reference(engine, load):
    """A merged run gives each caller what gathering, one run and scattering by NumPy give."""
    load(onnx_models.tiny(), max_batch_size=64, queue_delay_us=20_000)
    generator = np.random.default_rng(3)
    arrays = [generator.standard_normal((rows, 16)).astype(np.float32) for rows in (1, 2, 7, 16, 5)]
    with ThreadPoolExecutor(len(arrays)) as threads:
        replies = list(threads.map(lambda array: infer(engine, "tiny", {"input": array})["output"], arrays))
    whole = infer(engine, "tiny", {"input": reference.gather_rows(arrays)})["output"]
    for reply, expected in zip(replies, reference.scatter_rows(whole, [len(array) for array in arrays]), strict=True):
        np.testing.assert_allclose(reply, expected, rtol=1e-5)
    assert engine.statistics("tiny", 1)["executions"] < len(arrays) + 1


@pytest.mark.parametrize("delay_us", [0, 2000])
def test_each_caller_gets_own_rows_under_load(engine, load, delay_us):
    """Nonce in, nonce out: sixteen callers, mixed batch sizes, hundreds of requests."""
    load(onnx_models.identity(), "same", max_batch_size=16, queue_delay_us=delay_us, instance_count=2)

    def call(caller):
        for turn in range(60):
            rows = nonce_rows(caller * 1000 + turn, 1 + (caller + turn) % 16)
            np.testing.assert_array_equal(infer(engine, "same", {"input": rows})["output"], rows)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(call, range(16)))
    assert engine.statistics("same", 1)["success"] == 960


def test_requests_of_other_inner_shape_are_not_merged(engine, load):
    """Rows of different widths run in different batches, each right."""
    load(onnx_models.identity(shape=("batch", "width")), "same", max_batch_size=32, queue_delay_us=5000)

    def call(index):
        rows = nonce_rows(index, 2, width=1 + index % 3)
        np.testing.assert_array_equal(infer(engine, "same", {"input": rows})["output"], rows)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(call, range(120)))
    assert engine.statistics("same", 1)["failed"] == 0


def test_model_without_batch_runs_one_request_at_a_time(engine, load):
    """Where the first dimension is no batch, nothing is merged or cut."""
    load(onnx_models.column_sums(), "sums")

    def call(index):
        array = nonce_rows(index, 1 + index % 4)
        np.testing.assert_allclose(infer(engine, "sums", {"input": array})["output"], array.sum(axis=0), rtol=1e-6)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(80)))
    assert engine.statistics("sums", 1)["executions"] == 80


def test_scalar_and_empty_tensors_run(engine, load):
    """Rank 0, and a dimension of 0 that the model leaves open."""
    load(onnx_models.scalar_doubler(), "double")
    load(onnx_models.identity(shape=("n", "m")), "same")
    assert infer(engine, "double", {"input": np.float32(2.5)})["output"] == 5.0
    assert infer(engine, "same", {"input": np.zeros((0, 3), np.float32)})["output"].shape == (0, 3)


def test_failing_request_does_not_fail_its_batch_mates(engine, load):
    """One index out of the table's range fails alone; the others of its batch get their rows."""
    load(onnx_models.picker(), "picker", max_batch_size=8, queue_delay_us=50_000)
    barrier = threading.Barrier(8)

    def call(index):
        barrier.wait()
        message = encode_request("picker", {"index": np.array([index], np.int64)})
        try:
            return decode_reply(engine.infer(message))["output"].tolist()
        except InferError as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(call, [0, 1, 99, 3, 4, -50, 6, 7]))
    assert [reply for reply in replies if isinstance(reply, list)] == [[i * 1.5] for i in (0, 1, 3, 4, 6, 7)]
    assert {replies[2], replies[5]} <= {status.INVALID, status.INTERNAL}
    assert engine.statistics("picker", 1)["failed"] == 2


def test_output_that_does_not_follow_the_batch_is_an_error(engine, load):
    """A model that was declared to batch and does not is found out and named, not sliced wrongly."""
    load(onnx_models.identity(), "other", max_batch_size=4)
    load(onnx_models.halver(), "halver", max_batch_size=4)
    code, text = refusal_of(engine, encode_request("halver", {"input": nonce_rows(1, 4)}))
    assert code == status.INTERNAL
    assert "output 'output' has a first dimension of 2 for a batch of 4 rows" in text


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x7f", b"\x0a\x02\xff\xfe", bytes(range(256)), b"\x0b" * 50])
def test_malformed_message_is_refused(engine, message):
    """Bytes that are no ModelInferRequest."""
    code, text = refusal_of(engine, message)
    assert code == status.INVALID
    assert "no valid ModelInferRequest" in text


def test_empty_message_lacks_its_model(engine):
    """An empty message is valid protobuf and names no model."""
    assert refusal_of(engine, b"") == (status.INVALID, "model_name is missing")


def test_field_of_wrong_wire_type_counts_as_missing(engine):
    """A model_name sent as a number is an unknown field to protobuf, so the name is missing."""
    assert refusal_of(engine, b"\x08\x05") == (status.INVALID, "model_name is missing")


@pytest.mark.parametrize(
    ("model", "version", "code", "text"),
    [
        ("nobody", "", status.NOT_FOUND, "model 'nobody' is unknown"),
        ("nobody", "1", status.NOT_FOUND, "model 'nobody' is unknown"),
        ("tiny", "3", status.NOT_FOUND, "model 'tiny' has no version 3"),
        ("tiny", "one", status.INVALID, "model_version is 'one'; expected a positive number"),
        ("tiny", "0", status.INVALID, "model_version is '0'; expected a positive number"),
        ("tiny", "-1", status.INVALID, "model_version is '-1'; expected a positive number"),
        ("tiny", "9" * 40, status.INVALID, f"model_version is '{'9' * 40}'; expected a positive number"),
    ],
)
def test_unknown_model_or_version_is_refused(engine, load, model, version, code, text):
    """What does not exist is NOT_FOUND, what cannot exist is INVALID."""
    load(onnx_models.tiny())
    message = encode_request(model, {"input": np.zeros((1, 16), np.float32)}, version=version)
    assert refusal_of(engine, message) == (code, text)


def test_version_is_that_of_message_then_hint_then_highest(engine, load):
    """The message's own version wins over the gateway's hint, and the highest number serves the rest."""
    for version in (1, 2, 10):
        load(onnx_models.tiny(seed=version), "tiny", version, max_batch_size=4)
    rows = {"input": np.ones((1, 16), np.float32)}
    by_version = {
        version: infer(engine, "tiny", rows, version=str(version))["output"].tolist() for version in (1, 2, 10)
    }
    assert len({str(output) for output in by_version.values()}) == 3
    assert infer(engine, "tiny", rows)["output"].tolist() == by_version[10]
    assert infer(engine, "tiny", rows, version_hint=b"2")["output"].tolist() == by_version[2]
    assert infer(engine, "tiny", rows, version="1", version_hint=b"2")["output"].tolist() == by_version[1]


def test_unavailable_version_says_why_and_others_serve(engine, load):
    """A reason reaches the caller; the default goes to the highest version that serves."""
    load(onnx_models.tiny(), "tiny", 1, max_batch_size=4)
    engine.set_unavailable("tiny", 2, "its file is broken")
    message = encode_request("tiny", {"input": np.ones((1, 16), np.float32)}, version="2")
    code, text = refusal_of(engine, message)
    assert (code, text) == (status.UNAVAILABLE, "model 'tiny' version 2 is unavailable: its file is broken")
    assert infer(engine, "tiny", {"input": np.ones((1, 16), np.float32)})["output"].shape == (1, 4)


def test_expired_request_is_settled_while_the_model_is_busy(engine, load):
    """A deadline in the queue settles the request at once, and it never runs."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(engine.infer, message) for _ in range(2)]
        code, _ = refusal_of(engine, message, timeout_us=1000)
        assert code == status.EXPIRED
        assert not all(one.done() for one in running)
        assert all(one.result() for one in running)
    assert engine.statistics("slow", 1)["executions"] == 2
    assert engine.statistics("slow", 1)["cancelled"] == 1


def test_full_queue_refuses_and_serves_those_it_took(load, engine):
    """More than the queue holds are EXHAUSTED; the others get their rows."""
    load(onnx_models.slow(20_000), "slow", max_batch_size=1, max_queue_requests=2)

    def call(index):
        rows = nonce_rows(index, 1)
        try:
            return infer(engine, "slow", {"input": rows})["output"].tolist() == rows.tolist()
        except InferError as error:
            return error.code

    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(call, range(12)))
    assert set(replies) == {True, status.EXHAUSTED}


def test_bytes_beyond_the_pending_limit_are_refused(tmp_path):
    """A message larger than all that may wait is refused, and its bytes are not counted for ever."""
    engine = Engine(max_pending_bytes=4096)
    engine.load("same", 1, Session(onnx_models.save(onnx_models.identity(), tmp_path)), max_batch_size=1024)
    for _ in range(3):
        code, text = refusal_of(engine, encode_request("same", {"input": nonce_rows(1, 512)}))
        assert code == status.EXHAUSTED
        assert "at most 4096 may wait" in text
    assert infer(engine, "same", {"input": nonce_rows(1, 8)})["output"].shape == (8, 4)
    engine.close()


def test_swap_under_load_loses_nobody(engine, load):
    """While versions of one name are swapped, unloaded and loaded, every request of another caller is answered."""
    for version in (1, 2):
        load(onnx_models.identity(), "same", version, max_batch_size=16, queue_delay_us=100)
    stop = threading.Event()
    answered = []

    def call(caller):
        turn = 0
        while not stop.is_set():
            rows = nonce_rows(caller * 4096 + turn, 1 + turn % 3)
            np.testing.assert_array_equal(infer(engine, "same", {"input": rows})["output"], rows)
            turn += 1
        answered.append(turn)

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(call, caller) for caller in range(4)]
        for turn in range(40):
            load(onnx_models.identity(), "same", 1 + turn % 2, max_batch_size=16)
            if turn % 10 == 5:
                engine.unload("same", 2)
                load(onnx_models.identity(), "same", 2, max_batch_size=16)
        stop.set()
        for caller in callers:
            caller.result()
    assert sum(answered) > 40


def test_unload_ends_serving_and_finishes_what_was_admitted(engine, load):
    """A request that was admitted is answered although its model is unloaded meanwhile."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(engine.infer, message) for _ in range(4)]
        while engine.statistics("slow", 1)["queued"] == 0:
            pass
        engine.unload("slow", 1)
        outcomes = [one.exception() for one in running]
    assert any(outcome is None for outcome in outcomes)
    assert {outcome.code for outcome in outcomes if outcome is not None} <= {status.NOT_FOUND}
    assert refusal_of(engine, message) == (status.NOT_FOUND, "model 'slow' is unknown")


def test_drain_waits_for_what_runs(engine, load):
    """Drain reports whether everything was settled in time."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(engine.infer, message) for _ in range(2)]
        while engine.statistics("slow", 1)["queued"] == 0:
            pass
        assert not engine.drain(0.0)
        assert engine.drain(60.0)
        assert all(one.result() for one in running)


def test_quick_model_does_not_wait_behind_a_slow_one(tmp_path):
    """Two models that become ready at the same moment run side by side, also when one worker is idle just then."""
    engine = Engine(workers=4)
    engine.load("slow", 1, Session(onnx_models.save(onnx_models.slow(), tmp_path, "slow")), max_batch_size=1)
    engine.load("quick", 1, Session(onnx_models.save(onnx_models.identity(), tmp_path, "quick")), max_batch_size=1)
    queue = CompletionQueue(engine)
    row = {"input": np.zeros((1, 4), np.float32)}
    for _ in range(5):
        queue.submit(encode_request("slow", row), "slow")
        queue.submit(encode_request("quick", row), "quick")
        queue.flush()
        order = []
        while queue.in_flight:
            select.select([queue.fileno()], [], [], 60)
            order += [call.context for call, _, _ in queue.drain()]
        assert order == ["quick", "slow"]
    engine.close()


def test_statistics_answer_while_another_model_unloads(engine, load):
    """Waiting for a slow run to end holds nobody up who asks for something else."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    load(onnx_models.identity(), "other", max_batch_size=1)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(engine.infer, encode_request("slow", {"input": np.zeros((1, 4), np.float32)}))
        while engine.statistics("slow", 1)["queued"]:
            pass
        unloading = threads.submit(engine.unload, "slow", 1)
        while ("slow", 1) in engine.versions():
            pass
        assert engine.statistics("other", 1)["success"] == 0
        assert not unloading.done()
        assert running.result()


def test_deadline_beyond_the_clock_is_none(engine, load):
    """A client that says "for ever" in microseconds is not taken to be late."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    for timeout_us in (2**63 - 1, 2**62, 2**60):
        assert engine.infer(encode_request("same", {"input": nonce_rows(1, 1)}), timeout_us=timeout_us)


def test_deadline_within_the_delay_starts_the_batch(engine, load):
    """A request that would expire while it waits for company runs without."""
    load(onnx_models.identity(), "same", max_batch_size=4, queue_delay_us=5_000_000)
    assert engine.infer(encode_request("same", {"input": nonce_rows(1, 1)}), timeout_us=2_000_000)


def test_empty_tensor_of_huge_outline_is_refused(engine, load):
    """A few bytes must not make a model that reduces over nothing give gigabytes."""
    load(onnx_models.column_sums(), "sums")
    message = build_request("sums", {"input": np.zeros((0, 3), np.float32)})
    message.inputs[0].shape[:] = [0, 1 << 33]
    code, text = refusal_of(engine, message.SerializeToString())
    assert code == status.INVALID
    assert "has no element and too large dimensions: expected [-1,-1], got [0,8589934592]" in text


def test_forgotten_engine_is_closed_by_the_collector(tmp_path):
    """An engine that dies in a reference cycle ends its threads."""
    before = thread_count()
    for _ in range(3):
        engine = Engine()
        engine.load("tiny", 1, Session(onnx_models.save(onnx_models.tiny(), tmp_path)))
        cycle = [engine]
        cycle.append(cycle)
        del engine, cycle
    gc.collect()
    assert thread_count() <= before


def test_hundreds_of_idle_models_add_no_threads(engine, load):
    """A loaded model that waits for nothing costs no thread."""
    load(onnx_models.tiny(), "first", max_batch_size=4)
    infer(engine, "first", {"input": np.ones((1, 16), np.float32)})
    before = thread_count()
    for index in range(100):
        load(onnx_models.tiny(), f"model{index}", max_batch_size=4, instance_count=2)
    assert thread_count() == before


def thread_count():
    """Threads of this process, those without Python among them."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


@pytest.mark.parametrize(
    "options", [{"max_batch_size": -1}, {"instance_count": 0}, {"queue_delay_us": -5}, {"version": 0}]
)
def test_load_with_number_out_of_range_is_refused(load, options):
    """Wrong numbers are refused by the control plane."""
    with pytest.raises(ValueError, match="must be at least"):
        load(onnx_models.tiny(), **options)


def test_load_of_fixed_first_dimension_with_batching_is_refused(load):
    """A model whose first dimension is fixed has no batch."""
    with pytest.raises(ValueError, match="open first dimension"):
        load(onnx_models.identity(shape=(1, 4)), max_batch_size=4)


def test_closed_engine_refuses_to_load(tmp_path):
    """After close nothing is served or loaded, and close may be called again."""
    engine = Engine()
    session = Session(onnx_models.save(onnx_models.tiny(), tmp_path))
    engine.load("tiny", 1, session)
    engine.close()
    engine.close()
    assert refusal_of(engine, encode_request("tiny", {}))[0] == status.NOT_FOUND
    with pytest.raises(ValueError, match="closed"):
        engine.load("tiny", 1, session)
