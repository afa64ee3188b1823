"""kernels.statistics: every request is counted once, by how it ended, with times that add up."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import encode_request

from kernels import status
from kernels.engine import Engine
from kernels.session import Session
from kernels.statistics import DURATION_BOUNDS_US

# The coarse clock's distance from the precise one, at most.
COARSE_MS = 20
ENDS = ("success", "failed", "cancelled", "expired", "rejected", "refused")


def read_counts(engine, name):
    """The counters of version 1."""
    return engine.read_statistics(name, 1).counts


def test_fresh_version_has_counted_nothing(engine, load):
    """Zeros, no batches, no time of a latest inference."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    read = engine.read_statistics("same", 1)
    assert set(read.counts.values()) == {0}
    assert all(set(buckets) == {0} for buckets in read.histograms.values())
    assert (read.name, read.version, read.batches, read.queued) == ("same", 1, [], 0)


def test_success_counts_requests_rows_and_executions(engine, load):
    """One by one: a run each, by its number of rows."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    before_ms = time.time() * 1000
    for rows in (1, 3, 3, 8):
        infer(engine, "same", {"input": nonce_rows(1, rows)})
    read = engine.read_statistics("same", 1)
    assert (read.counts["success"], read.counts["rows"], read.counts["executions"]) == (4, 15, 4)
    assert [(batch.rows, batch.executions) for batch in read.batches] == [(1, 1), (3, 2), (8, 1)]
    assert before_ms - COARSE_MS <= read.counts["last_inference_ms"] <= time.time() * 1000


def test_batch_counts_once_and_its_times_for_each_request(engine, load):
    """A run of four requests: its phases once among the batches, four times among the requests."""
    load(onnx_models.identity(), "same", max_batch_size=4, queue_delay_us=10_000_000)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda index: infer(engine, "same", {"input": nonce_rows(index, 1)}), range(4)))
    read = engine.read_statistics("same", 1)
    [batch] = read.batches
    assert (batch.rows, batch.executions, read.counts["success"]) == (4, 1, 4)
    for phase in ("gather", "run", "encode"):
        assert getattr(batch, f"{phase}_ns") == read.counts[f"{phase}_ns"] > 0
        assert read.counts[f"request_{phase}_ns"] == 4 * read.counts[f"{phase}_ns"]


def test_times_of_a_request_add_up_to_its_whole(engine, load):
    """What is in the parts is in the whole, and little else is."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    infer(engine, "slow", {"input": nonce_rows(1, 1)})
    counts = read_counts(engine, "slow")
    parts = sum(counts[name] for name in ("queue_ns", "request_gather_ns", "request_run_ns", "request_encode_ns"))
    assert 0 < parts <= counts["success_ns"]
    assert counts["request_run_ns"] > counts["success_ns"] / 2


def test_histograms_hold_as_many_as_were_counted_in_the_right_buckets(engine, load):
    """A single request lies in the bucket that its time says."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    infer(engine, "slow", {"input": nonce_rows(1, 1)})
    read = engine.read_statistics("slow", 1)
    for phase, total in (("request", "success_ns"), ("queue", "queue_ns"), ("run", "run_ns"), ("gather", "gather_ns")):
        buckets = read.histograms[phase]
        assert (sum(buckets), len(buckets)) == (1, len(DURATION_BOUNDS_US) + 1)
        place = buckets.index(1)
        took_us = read.counts[total] / 1000
        assert took_us <= DURATION_BOUNDS_US[place]
        assert place == 0 or took_us > DURATION_BOUNDS_US[place - 1]


def test_every_end_of_a_request_is_counted_by_its_name(engine, load):
    """Served, failed in the run, expired, refused for its shape: one of each, and time for those that waited."""
    load(onnx_models.picker(), "picker", max_batch_size=1)
    infer(engine, "picker", {"index": np.array([1], np.int64)})
    refusal_of(engine, encode_request("picker", {"index": np.array([99], np.int64)}))
    refusal_of(engine, encode_request("picker", {"index": np.array([[1]], np.int64)}))
    assert [read_counts(engine, "picker")[end] for end in ENDS] == [1, 1, 0, 0, 0, 1]
    assert read_counts(engine, "picker")["failure_ns"] > 0
    assert read_counts(engine, "picker")["executions"] == 1


def test_expired_request_is_counted_with_the_time_that_it_waited(engine, load):
    """At least as long as its deadline lay ahead."""
    load(onnx_models.slow(1_000_000), "slow", max_batch_size=1, instance_count=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(engine.infer, message)
        while not engine.statistics("slow", 1)["running"]:
            pass
        assert refusal_of(engine, message, timeout_us=2000)[0] == status.EXPIRED
        assert read_counts(engine, "slow")["expired"] == 1
        assert read_counts(engine, "slow")["failure_ns"] >= 1_900_000
        assert running.result()


def test_rejected_request_is_counted_without_having_waited(tmp_path):
    """What does not fit the server's memory limit is turned away at once."""
    engine = Engine(max_pending_bytes=4096)
    engine.load("same", 1, Session(onnx_models.save(onnx_models.identity(), tmp_path)), max_batch_size=1024)
    refusal_of(engine, encode_request("same", {"input": nonce_rows(1, 512)}))
    counts = read_counts(engine, "same")
    assert [counts[end] for end in ENDS] == [0, 0, 0, 0, 1, 0]
    assert counts["failure_ns"] == 0
    engine.close()


def test_rows_beyond_the_table_are_in_the_totals_alone(engine, load):
    """65,536 rows have an entry of their own, 65,537 have none."""
    load(onnx_models.identity(shape=("batch",)), "same", max_batch_size=70_000)
    for rows in (65_536, 65_537):
        infer(engine, "same", {"input": np.zeros(rows, np.float32)})
    read = engine.read_statistics("same", 1)
    assert [batch.rows for batch in read.batches] == [65_536]
    assert (read.counts["executions"], read.counts["rows"]) == (2, 131_073)


def test_version_loaded_again_begins_anew(engine, load):
    """A swap drops the counts with the version that had them, as Triton does."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    infer(engine, "same", {"input": nonce_rows(1, 1)})
    assert read_counts(engine, "same")["success"] == 1
    load(onnx_models.identity(), "same", max_batch_size=4)
    assert read_counts(engine, "same")["success"] == 0


def test_versions_count_apart_and_unknown_ones_raise(engine, load):
    """Each has its own counters; what does not serve has none."""
    for version in (1, 2):
        load(onnx_models.identity(), "same", version, max_batch_size=4)
    infer(engine, "same", {"input": nonce_rows(1, 1)}, version="1")
    assert [engine.read_statistics("same", version).counts["success"] for version in (1, 2)] == [1, 0]
    engine.set_unavailable("same", 2, "because")
    for version in (2, 3):
        with pytest.raises(KeyError):
            engine.read_statistics("same", version)


def test_counts_read_under_load_never_fall_and_end_complete(engine, load):
    """Readers see sums that only grow, of which each is consistent with the others, and nobody is forgotten."""
    load(onnx_models.identity(), "same", max_batch_size=16, instance_count=2)
    over = threading.Event()

    def watch():
        before = read_counts(engine, "same")
        while not over.is_set():
            read = engine.read_statistics("same", 1)
            assert all(read.counts[name] >= before[name] for name in before)
            assert sum(read.histograms["request"]) == read.counts["success"]
            assert sum(batch.rows * batch.executions for batch in read.batches) == read.counts["rows"]
            before = read.counts

    def call(caller):
        for turn in range(100):
            infer(engine, "same", {"input": nonce_rows(caller, 1 + turn % 5)})

    with ThreadPoolExecutor(10) as threads:
        watching = [threads.submit(watch) for _ in range(2)]
        list(threads.map(call, range(8)))
        over.set()
        for one in watching:
            one.result()
    assert read_counts(engine, "same")["success"] == 800
    assert read_counts(engine, "same")["rows"] == 8 * 20 * (1 + 2 + 3 + 4 + 5)
