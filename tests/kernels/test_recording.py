"""kernels.recording: batches are filled up to recorded sizes and run on tensors at fixed places, and nobody sees it.

On "cpu:staged:0" all of it takes place but the recording itself, which is CUDA's: the device's memory is the process's,
so that a test can look at what lies there.
"""

import ctypes
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from host_cuda import GpuMemory, open_host_cuda
from inference_messages import build_request, encode_request
from memory_objects import place_tensor
from onnx import TensorProto

from kernels import status
from kernels.bare_loop import drive_session
from kernels.cuda_runtime import CudaError
from kernels.device import copy_there_and_back
from kernels.session import Session, SessionError
from service.model_sessions import list_usable_gpus

SIZES = (1, 4, 8)
LARGEST = 12  # a batch beyond the largest size
ROW_BYTES = 16


# What a GPU does is recorded there; a test that looks at what lies on the device is for the CPU alone.
every_device = pytest.mark.parametrize(
    "device",
    [
        "cpu:staged:0",
        pytest.param(
            "cuda:0",
            marks=pytest.mark.skipif(
                not list_usable_gpus(), reason="no GPU that ONNX Runtime can use: see `sluice doctor`"
            ),
        ),
    ],
    indirect=True,
)


@pytest.fixture
def device(request):
    """Where runs are recorded."""
    return getattr(request, "param", "cpu:staged:0")


@pytest.fixture
def open_session(tmp_path, device):
    """Open a model to record its runs: open_session(model, sizes, **options of Session)."""

    def open_model(model, sizes=SIZES, name="same", **options):
        path = onnx_models.save(model, tmp_path, name)
        session = Session(path, device=device, records=True, **options)
        session.record_batches(sizes)
        return session

    return open_model


@pytest.fixture
def recorded(engine, open_session):
    """A recorded session of FP32 [batch, 4] to itself, loaded as `same`."""
    session = open_session(onnx_models.identity())
    engine.load("same", 1, session, max_batch_size=LARGEST, buffer_sets=2)
    return session


def read_rows(address, rows):
    """So many rows that lie at an address."""
    return np.frombuffer(ctypes.string_at(address, rows * ROW_BYTES), np.float32).reshape(rows, 4)


@every_device
@pytest.mark.parametrize("rows", range(1, LARGEST + 1))
def test_batch_of_any_size_gets_its_own_rows(engine, recorded, rows):
    """Below, at, between and above the recorded sizes."""
    for turn in range(3):
        sent = nonce_rows(100 * turn + rows, rows)
        np.testing.assert_array_equal(infer(engine, "same", {"input": sent})["output"], sent)
    assert engine.statistics("same", 1)["rows"] == 3 * rows


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 4), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_rows_are_added_up_to_the_next_size(engine, recorded, rows, size):
    """They are zeros, whatever a larger batch has left there."""
    [given], [made] = recorded.recorded_places(rows)
    infer(engine, "same", {"input": nonce_rows(9, 8)})
    sent = nonce_rows(5, rows)
    infer(engine, "same", {"input": sent})
    filled = np.concatenate([sent, np.zeros((size - rows, 4), np.float32)])
    np.testing.assert_array_equal(read_rows(given, size), filled)
    np.testing.assert_array_equal(read_rows(made, size), filled)


def test_batch_above_the_largest_size_runs_as_it_is(engine, recorded):
    """What lies at the recorded places is left alone."""
    infer(engine, "same", {"input": nonce_rows(9, 8)})
    sent = nonce_rows(5, 9)
    np.testing.assert_array_equal(infer(engine, "same", {"input": sent})["output"], sent)
    assert recorded.recorded_places(9) is None
    [given], _ = recorded.recorded_places(8)
    np.testing.assert_array_equal(read_rows(given, 8), nonce_rows(9, 8))


def test_all_sizes_begin_at_the_same_places(recorded):
    """Those of the largest size, of which the others take a part."""
    assert recorded.recorded_sizes == SIZES
    assert len({recorded.recorded_places(size) for size in SIZES}) == 1
    [given], [made] = recorded.recorded_places(1)
    assert abs(given - made) >= 8 * ROW_BYTES


def test_only_recorded_sizes_are_run(engine, open_session, tmp_path):
    """As ONNX Runtime itself wrote down: each once before any request, and later none but these."""
    session = open_session(onnx_models.tiny(), SIZES, profile=tmp_path / "profile")
    engine.load("tiny", 1, session, max_batch_size=8, buffer_sets=2)
    for rows in (3, 2, 5, 7, 1, 8):
        infer(engine, "tiny", {"input": np.ones((rows, 16), np.float32)})
    engine.unload("tiny", 1)
    del session
    [profile] = tmp_path.glob("profile*.json")
    events = [event for event in json.loads(profile.read_text()) if "input_type_shape" in event.get("args", {})]
    first = events[0]["name"]
    runs = [event["args"]["input_type_shape"][0]["float"][0] for event in events if event["name"] == first]
    # The largest once on each of the two sets of buffers.
    assert runs == [1, 4, 8, 8, 8, 4, 4, 8, 8, 1, 8]


@every_device
def test_requests_that_meet_in_a_batch_get_their_own_rows(engine, open_session):
    """Some with several rows, from many callers at once, on sessions that record each for themselves."""
    sessions = [open_session(onnx_models.identity(), (2, 8, 16), name=f"same{index}") for index in range(2)]
    engine.load("same", 1, sessions, max_batch_size=16, buffer_sets=3)
    with ThreadPoolExecutor(16) as threads:
        sent = {turn: nonce_rows(turn, 1 + turn % 5) for turn in range(600)}
        calls = {turn: threads.submit(infer, engine, "same", {"input": rows}) for turn, rows in sent.items()}
        for turn, call in calls.items():
            np.testing.assert_array_equal(call.result()["output"], sent[turn])
    assert engine.statistics("same", 1)["executions"] < 600


@every_device
def test_several_tensors_are_kept_apart(engine, open_session):
    """Two inputs, two outputs, of which one request wants one only."""
    engine.load("both", 1, open_session(onnx_models.add_and_subtract(4)), max_batch_size=8, buffer_sets=2)
    a, b = nonce_rows(7, 3), nonce_rows(2, 3)
    outputs = infer(engine, "both", {"a": a, "b": b})
    np.testing.assert_array_equal(outputs["sum"], a + b)
    np.testing.assert_array_equal(outputs["difference"], a - b)
    assert list(infer(engine, "both", {"a": a, "b": b}, outputs=["difference"])) == ["difference"]


def test_failed_run_fails_its_request_and_no_other(engine, open_session):
    """An index that is not in the table, in a batch with added rows, whose index 0 is."""
    engine.load(
        "picker", 1, open_session(onnx_models.picker()), max_batch_size=8, buffer_sets=2, queue_delay_us=100_000
    )
    with ThreadPoolExecutor(3) as threads:
        bad = threads.submit(refusal_of, engine, encode_request("picker", {"index": np.array([99], np.int64)}))
        good = threads.submit(infer, engine, "picker", {"index": np.array([2, 4], np.int64)})
        assert good.result()["output"].tolist() == [3.0, 6.0]
        assert bad.result()[0] != status.OK


def test_tensors_in_memory_of_gpus_come_and_go_by_copies(engine, recorded):
    """A recording has its tensors at places of its own."""
    engine.shared_memory.use_cuda(open_host_cuda())
    sent = nonce_rows(3, 3)
    with GpuMemory(sent.tobytes()) as given, GpuMemory(bytes(sent.nbytes)) as made:
        engine.shared_memory.register_cuda("in", given.handle, 0, given.size)
        engine.shared_memory.register_cuda("out", made.handle, 0, made.size)
        request = build_request("same", {"input": sent}, outputs=["output"])
        del request.raw_input_contents[:]
        place_tensor(request.inputs[0], "in", given.size)
        place_tensor(request.outputs[0], "out", made.size)
        engine.infer(request.SerializeToString())
        assert made.read() == sent.tobytes()
        engine.shared_memory.unregister_all_cuda()


@pytest.mark.parametrize(
    "model",
    [
        onnx_models.identity(TensorProto.STRING),
        onnx_models.identity(shape=("batch", "length")),
        onnx_models.identity(shape=(4, 4)),
        onnx_models.scalar_doubler(),
    ],
    ids=["strings", "open", "fixed", "scalar"],
)
def test_model_whose_sizes_are_not_known_cannot_record(open_session, model):
    """A recording is of one size of everything."""
    with pytest.raises(SessionError, match="of which no dimension but the batch is open"):
        open_session(model)


def test_model_that_breaks_its_promise_is_refused_at_load(engine, open_session):
    """Its output has another size than it says: no run of it can be replayed."""
    session = open_session(onnx_models.halver(), (4, 8))
    with pytest.raises(SessionError, match="its runs cannot be recorded on cpu:staged:0"):
        engine.load("halver", 1, session, max_batch_size=8, buffer_sets=2)


@pytest.mark.parametrize("sizes", [(), (0,), (4, 2), (2, 2)])
def test_sizes_that_do_not_ascend_are_refused(open_session, sizes):
    """Nor are those below a row."""
    with pytest.raises(ValueError, match="that ascend"):
        open_session(onnx_models.identity(), sizes)


def test_session_that_was_not_opened_for_it_cannot_record(tmp_path):
    """Nor one that has no memory of a device, nor one that does already."""
    path = onnx_models.save(onnx_models.identity(), tmp_path)
    for device, records in (("cpu:staged:0", False), ("cpu", True), ("cpu:staged", True)):
        with pytest.raises(SessionError, match="was not opened to record its runs"):
            Session(path, device=device, records=records).record_batches(SIZES)
    session = Session(path, device="cpu:staged:0", records=True)
    session.record_batches(SIZES)
    with pytest.raises(SessionError, match="or does so already"):
        session.record_batches(SIZES)


def test_recorded_session_without_lane_is_refused(engine, open_session):
    """Workers would meet at its places."""
    with pytest.raises(ValueError, match="needs a lane"):
        engine.load("same", 1, open_session(onnx_models.identity()), max_batch_size=8)


# ---- the bare loop, and CUDA's part of the copies


@pytest.mark.parametrize("binds", [False, True])
def test_bare_loop_runs_in_every_way(tmp_path, binds):
    """Given to the run or bound, for models with several tensors and without batches."""
    path = onnx_models.save(onnx_models.add_and_subtract(), tmp_path)
    for device in ("cpu", "cpu:staged"):
        assert drive_session(Session(path, device=device), 4, 3, binds=binds) > 0
    path = onnx_models.save(onnx_models.identity(shape=(2, 4)), tmp_path, "fixed")
    assert drive_session(Session(path), 0, 3, binds=binds) > 0


@every_device
def test_bare_loop_replays_what_is_recorded(open_session):
    """And refuses to bind it."""
    session = open_session(onnx_models.identity())
    assert drive_session(session, 4, 3) > 0
    with pytest.raises(ValueError, match="places of its own"):
        drive_session(session, 4, 3, binds=True)


def test_bare_loop_tells_why_a_run_failed(tmp_path):
    """An output that is bound to a place of another size."""
    path = onnx_models.save(onnx_models.halver(), tmp_path)
    with pytest.raises(RuntimeError, match="ONNX Runtime: "):
        drive_session(Session(path), 4, 1, binds=True)


def test_copies_of_a_stream_are_made_in_their_order():
    """There and back, waited for once; a place that is none of the GPU's is refused."""
    cuda = open_host_cuda()
    with GpuMemory(bytes(64), gpu=1) as memory:
        assert copy_there_and_back(cuda, 1, memory.address, b"x" * 64) == b"x" * 64
        assert memory.read() == b"x" * 64
        with pytest.raises(RuntimeError, match="CUDA: invalid argument"):
            copy_there_and_back(cuda, 1, memory.address, b"x" * 65)
        with pytest.raises(CudaError, match="no CUDA-capable device"):
            copy_there_and_back(cuda, 2, memory.address, b"x")
