"""kernels.pipeline and kernels.lane: a session is run by one thread, which others keep supplied."""

import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import encode_request
from sanitizers import skip_under_sanitizers
from ways import LANE, LANES, STAGED, every_lane, every_way

from kernels import status
from kernels.engine import Engine
from kernels.session import Session

LANE_NAME = "sluice-lane"
LANE_END_S = 30.0
MANY_ITERATIONS = 1_000_000.0
RELOADS = 40
# A batch of 16 rows of 64 KiB, in and out, for each set of buffers.
WIDE, WIDE_ROWS = 16384, 16


def lane_threads():
    """System's numbers of the threads that are lanes."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir() if read_name(task) == LANE_NAME}


def read_name(task):
    """A thread's name; "" of one that has ended meanwhile."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (task / "comm").read_text().strip()
    return ""


def await_end_of_lanes():
    """Return once no lane is left: a thread that has been joined is listed for a moment yet."""
    until = time.monotonic() + LANE_END_S
    while left := lane_threads():
        assert time.monotonic() < until, left


def resident_bytes():
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads_of_runs(folder, session):
    """Which thread made each run of a session, as ONNX Runtime itself wrote down."""
    [profile] = folder.glob(f"{session}_*.json")
    return [event["tid"] for event in json.loads(profile.read_text()) if event["name"] == "model_run"]


def run_profiled(path, folder, sessions, **options):
    """Sixteen callers of a model that is unloaded then; the lanes that there were meanwhile."""
    engine = Engine(workers=4)
    opened = [Session(path, profile=folder / f"session{index}", device="cpu:staged") for index in range(sessions)]
    engine.load("same", 1, opened, max_batch_size=4, **options)
    opened.clear()
    with ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(infer, engine, "same", {"input": nonce_rows(turn, 1)}) for turn in range(400)]
        for turn, call in enumerate(calls):
            np.testing.assert_array_equal(call.result()["output"], nonce_rows(turn, 1))
    lanes = lane_threads()
    engine.close()
    return lanes


@pytest.mark.parametrize("sessions", [1, 3])
def test_session_is_run_by_its_lane_alone(tmp_path, sessions):
    """Whoever gathers and encodes, and from the first run on, which is before any request."""
    path = onnx_models.save(onnx_models.slow(200), tmp_path)
    lanes = run_profiled(path, tmp_path, sessions, buffer_sets=2)
    assert len(lanes) == sessions
    runners = [set(threads_of_runs(tmp_path, f"session{index}")) for index in range(sessions)]
    assert [len(threads) for threads in runners] == [1] * sessions
    assert set.union(*runners) == lanes


def test_session_without_lane_is_run_by_several_workers(tmp_path):
    """Which shows that the test above can fail."""
    path = onnx_models.save(onnx_models.slow(200), tmp_path)
    assert run_profiled(path, tmp_path, 1, instance_count=4) == set()
    assert len(set(threads_of_runs(tmp_path, "session0"))) > 1


@pytest.mark.parametrize("way", [LANE, STAGED], ids=["lane", "staged"], indirect=True)
def test_batch_stays_open_while_its_session_runs(engine, load):
    """What comes meanwhile meets in one batch: a free set of buffers is no reason to begin a small one."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=64)
    long = encode_request("moody", {"input": np.full((1, 4), MANY_ITERATIONS, np.float32)})
    with ThreadPoolExecutor(6) as threads:
        first = threads.submit(engine.infer, long)
        while engine.statistics("moody", 1)["running"] == 0:
            pass
        others = [threads.submit(infer, engine, "moody", {"input": nonce_rows(turn, 1)}) for turn in range(5)]
        while engine.statistics("moody", 1)["queued"] < 5:
            pass
        assert not first.done()
        for turn, other in enumerate(others):
            np.testing.assert_array_equal(other.result()["output"], nonce_rows(turn, 1))
    assert engine.statistics("moody", 1)["executions"] == 2


@pytest.mark.parametrize("way", [LANE, STAGED], ids=["lane", "staged"], indirect=True)
def test_full_batch_is_gathered_while_another_runs(engine, load):
    """It leaves the queue, and waits in buffers of its own for the session."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=2)
    long = encode_request("moody", {"input": np.full((2, 4), MANY_ITERATIONS, np.float32)})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(engine.infer, long)
        while engine.statistics("moody", 1)["running"] == 0:
            pass
        second = threads.submit(infer, engine, "moody", {"input": nonce_rows(7, 2)})
        while engine.statistics("moody", 1)["running"] < 2:
            pass
        assert engine.statistics("moody", 1)["queued"] == 0
        assert engine.statistics("moody", 1)["executions"] == 0
        assert not first.done()
        np.testing.assert_array_equal(second.result()["output"], nonce_rows(7, 2))
        assert first.result()


@skip_under_sanitizers("a sanitizer ends the process that asks for petabytes")
@every_way
def test_out_of_memory_fails_its_batch_and_the_session_lives(engine, load):
    """A run that asks for petabytes is EXHAUSTED; those before and after it are answered."""
    load(onnx_models.ones_counter(), "ones")
    for _ in range(3):
        assert infer(engine, "ones", {"size": np.array([1000], np.int64)})["output"].tolist() == [1000.0]
        code, text = refusal_of(engine, encode_request("ones", {"size": np.array([1 << 50], np.int64)}))
        assert code == status.EXHAUSTED
        assert "memory" in text
    assert engine.statistics("ones", 1)["failed"] == 3


@every_lane
def test_memory_and_threads_come_back_with_an_unload(engine, load):
    """Buffers that the session's allocator made, among them, and the lanes."""
    for turn in range(RELOADS):
        load(onnx_models.identity(shape=("batch", WIDE)), "wide", max_batch_size=WIDE_ROWS)
        rows = nonce_rows(turn, WIDE_ROWS, WIDE)
        np.testing.assert_array_equal(infer(engine, "wide", {"input": rows})["output"], rows)
        engine.unload("wide", 1)
        await_end_of_lanes()
        if turn == RELOADS // 4:
            before = resident_bytes()
    # One load's buffers have more than that: 2 sets or more, each with 1 MiB in and out.
    assert resident_bytes() - before < RELOADS * 1024 * 1024


@pytest.mark.parametrize("way", [LANES], ids=["lanes"], indirect=True)
def test_batches_spread_over_sessions(engine, load):
    """A batch goes to a session that has nothing to run, however small it is."""
    load(onnx_models.slow_by_value(), "moody", max_batch_size=64)
    long = encode_request("moody", {"input": np.full((1, 4), MANY_ITERATIONS, np.float32)})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(engine.infer, long)
        while engine.statistics("moody", 1)["running"] == 0:
            pass
        np.testing.assert_array_equal(infer(engine, "moody", {"input": nonce_rows(1, 1)})["output"], nonce_rows(1, 1))
        assert not first.done()


@pytest.mark.parametrize(
    ("sessions", "options", "text"),
    [
        (0, {"buffer_sets": 2}, "at least one"),
        (2, {}, "where these have lanes"),
        (1, {"buffer_sets": 2, "instance_count": 2}, "where these have lanes"),
        (1, {"buffer_sets": 17}, "expected 0 to 16"),
        (1, {"buffer_sets": -1}, "expected 0 to 16"),
    ],
)
def test_sessions_and_lanes_that_do_not_go_together_are_refused(engine, tmp_path, sessions, options, text):
    """With what was expected."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    with pytest.raises(ValueError, match=text):
        engine.load("tiny", 1, [Session(path) for _ in range(sessions)], **options)


def test_sessions_of_other_models_are_refused(engine, tmp_path):
    """Each would answer otherwise."""
    paths = [
        onnx_models.save(model, tmp_path, f"model{index}")
        for index, model in enumerate((onnx_models.tiny(), onnx_models.identity()))
    ]
    with pytest.raises(ValueError, match="not of one model"):
        engine.load("tiny", 1, [Session(path) for path in paths], buffer_sets=2)
