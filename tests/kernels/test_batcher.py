"""kernels.batcher and kernels.instance: everybody gets their own rows, whatever happens to the rest of the batch."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from datatypes import DTYPES
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import build_request, decode_reply, encode_request
from onnx import TensorProto
from ways import every_way

from kernels import reference, status
from kernels.engine import Engine, InferError
from kernels.session import Session

# Of a run that still goes on when a busy machine gets to what is tested meanwhile.
LONG_ITERATIONS = 2_000_000


@every_way
@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_identity_returns_every_datatype(engine, load, datatype, rows):
    """Any bits, NaNs among them, come back as they went in; BOOL as 0 or 1."""
    load(onnx_models.identity(onnx_models.ELEMENT_TYPES[datatype], ("batch", 5)), "same", max_batch_size=64)
    raw = np.random.default_rng(rows).bytes(rows * 5 * np.dtype(DTYPES[datatype]).itemsize)
    array = np.frombuffer(raw, DTYPES[datatype]).reshape(rows, 5)
    if datatype == "BOOL":
        array = np.frombuffer(raw, np.uint8).reshape(rows, 5) % 2 == 1
    assert infer(engine, "same", {"input": array})["output"].tobytes() == array.tobytes()


@every_way
def test_bool_of_any_value_is_true(engine, load):
    """A byte of 7 is true, and comes back as 1: no kernel sees a bool that is neither."""
    load(onnx_models.identity(TensorProto.BOOL, ("batch", 3)), "same", max_batch_size=4)
    message = encode_request("same", {"input": np.array([[False, True, True]])})
    reply = decode_reply(engine.infer(message.replace(b"\x00\x01\x01", b"\x00\x07\xff")))
    assert reply["output"].tobytes() == b"\x00\x01\x01"


@every_way
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


@every_way
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


@every_way
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


@every_way
def test_requests_of_other_inner_shape_are_not_merged(engine, load):
    """Rows of different widths run in different batches, each right."""
    load(onnx_models.identity(shape=("batch", "width")), "same", max_batch_size=32, queue_delay_us=5000)

    def call(index):
        rows = nonce_rows(index, 2, width=1 + index % 3)
        np.testing.assert_array_equal(infer(engine, "same", {"input": rows})["output"], rows)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(call, range(120)))
    assert engine.statistics("same", 1)["failed"] == 0


@every_way
def test_model_without_batch_runs_one_request_at_a_time(engine, load):
    """Where the first dimension is no batch, nothing is merged or cut."""
    load(onnx_models.column_sums(), "sums")

    def call(index):
        array = nonce_rows(index, 1 + index % 4)
        np.testing.assert_allclose(infer(engine, "sums", {"input": array})["output"], array.sum(axis=0), rtol=1e-6)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(80)))
    assert engine.statistics("sums", 1)["executions"] == 80


@every_way
def test_scalar_and_empty_tensors_run(engine, load):
    """Rank 0, and a dimension of 0 that the model leaves open."""
    load(onnx_models.scalar_doubler(), "double")
    load(onnx_models.identity(shape=("n", "m")), "same")
    assert infer(engine, "double", {"input": np.float32(2.5)})["output"] == 5.0
    assert infer(engine, "same", {"input": np.zeros((0, 3), np.float32)})["output"].shape == (0, 3)


@every_way
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


@every_way
def test_output_that_does_not_follow_the_batch_is_an_error(engine, load):
    """A model that was declared to batch and does not is found out and named, not sliced wrongly."""
    load(onnx_models.identity(), "other", max_batch_size=4)
    load(onnx_models.halver(), "halver", max_batch_size=4)
    code, text = refusal_of(engine, encode_request("halver", {"input": nonce_rows(1, 4)}))
    assert code == status.INTERNAL
    assert "output 'output' has a first dimension of 2 for a batch of 4 rows" in text


@every_way
def test_expired_request_is_settled_while_the_model_is_busy(engine, load, way):
    """A deadline in the queue settles the request at once, and it never runs."""
    load(onnx_models.slow(LONG_ITERATIONS), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    busy = way.capacity + 1
    with ThreadPoolExecutor(busy) as threads:
        running = [threads.submit(engine.infer, message) for _ in range(busy)]
        while engine.statistics("slow", 1)["queued"] == 0:
            pass
        code, _ = refusal_of(engine, message, timeout_us=1000)
        assert code == status.EXPIRED
        assert not all(one.done() for one in running)
        assert all(one.result() for one in running)
    assert engine.statistics("slow", 1)["executions"] == busy
    assert engine.statistics("slow", 1)["expired"] == 1


@every_way
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


@every_way
def test_deadline_within_the_delay_starts_the_batch(engine, load):
    """A request that would expire while it waits for company runs without."""
    load(onnx_models.identity(), "same", max_batch_size=4, queue_delay_us=5_000_000)
    assert engine.infer(encode_request("same", {"input": nonce_rows(1, 1)}), timeout_us=2_000_000)


@every_way
def test_empty_tensor_of_huge_outline_is_refused(engine, load):
    """A few bytes must not make a model that reduces over nothing give gigabytes."""
    load(onnx_models.column_sums(), "sums")
    message = build_request("sums", {"input": np.zeros((0, 3), np.float32)})
    message.inputs[0].shape[:] = [0, 1 << 33]
    code, text = refusal_of(engine, message.SerializeToString())
    assert code == status.INVALID
    assert "has no element and too large dimensions: expected [-1,-1], got [0,8589934592]" in text
