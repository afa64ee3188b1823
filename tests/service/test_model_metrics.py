"""Triton's metrics, and our histograms, out of the kernels' counters."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kernels.statistics import DURATION_BOUNDS_US, VersionStatistics
from service.cache_metrics import CACHE_USAGE, describe_cache
from service.exposition import write_text
from service.model_metrics import HISTOGRAMS, describe_models

COUNTS = {
    "success": 7,
    "failed": 1,
    "cancelled": 2,
    "expired": 3,
    "timed_out": 20,
    "rejected": 4,
    "late": 100,
    "refused": 5,
    "success_ns": 70_999,
    "failure_ns": 1,
    "queue_ns": 20_000,
    "request_gather_ns": 3_000,
    "request_run_ns": 40_000,
    "request_encode_ns": 5_000,
    "cache_hits": 0,
    "cache_hit_ns": 0,
    "cache_misses": 0,
    "cache_miss_ns": 0,
    "executions": 6,
    "rows": 17,
    "gather_ns": 1_000,
    "run_ns": 10_000,
    "encode_ns": 2_000,
    "last_inference_ms": 1,
}
DISPATCHES = {"full": 1, "preferred": 2, "delay": 3, "deadline": 4, "alone": 5, "drain": 6}
BUCKETS = [0, 7, *[0] * (len(DURATION_BOUNDS_US) - 1)]


def read_samples(*versions):
    """{(sample's name, the labels' values beside model and version): value}, of all versions together."""
    families = text_string_to_metric_families(write_text(describe_models(versions)).decode())
    return {
        # The parser gives every counter OpenMetrics' suffix.
        (
            sample.name.removesuffix("_total"),
            *(value for name, value in sample.labels.items() if name != "model"),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def make_version(**changes):
    """Counters of version 3 of a model."""
    phases = dict.fromkeys(("request", "queue", "gather", "run", "encode"), BUCKETS)
    return VersionStatistics("tiny", 3, COUNTS | changes, phases, [], 9, DISPATCHES)


def test_counters_bear_tritons_names_and_units():
    """Requests by end and reason, rows, runs; cumulative microseconds, cut to whole ones."""
    samples = read_samples(make_version())
    expected = {
        "nv_inference_request_success": 7,
        "nv_inference_count": 17,
        "nv_inference_exec_count": 6,
        "nv_inference_pending_request_count": 9,
        "nv_inference_request_duration_us": 70,
        "nv_inference_queue_duration_us": 20,
        "nv_inference_compute_input_duration_us": 3,
        "nv_inference_compute_infer_duration_us": 40,
        "nv_inference_compute_output_duration_us": 5,
    }
    assert {name: samples[name, "3"] for name in expected} == expected
    failures = {"REJECTED": 127, "CANCELED": 2, "BACKEND": 1, "OTHER": 5}
    assert {reason: samples["nv_inference_request_failure", "3", reason] for reason in failures} == failures


def test_counters_of_the_queue_are_by_reason():
    """What it refused or gave up, and why batches left it."""
    samples = read_samples(make_version())
    refusals = {"full": 4, "late": 100, "deadline": 3, "timeout": 20}
    assert {reason: samples["sluice_queue_refusals", "3", reason] for reason in refusals} == refusals
    assert {reason: samples["sluice_dispatches", "3", reason] for reason in DISPATCHES} == DISPATCHES


@pytest.mark.parametrize(
    ("name", "total_s"), [*zip(HISTOGRAMS, (70_999e-9, 20_000e-9, 1_000e-9, 10_000e-9, 2_000e-9), strict=True)]
)
def test_histograms_are_in_seconds(name, total_s):
    """Bounds from a microsecond on, doubling."""
    samples = read_samples(make_version())
    assert samples[f"{name}_bucket", "3", "1e-06"] == 0
    assert samples[f"{name}_bucket", "3", "2e-06"] == samples[f"{name}_bucket", "3", "+Inf"] == 7
    assert samples[f"{name}_count", "3"] == 7
    assert samples[f"{name}_sum", "3"] == pytest.approx(total_s)


def test_version_that_never_ran_has_counters_and_no_histograms():
    """With thousands of models most samples would say nothing."""
    names = {name for name, *_ in read_samples(make_version(executions=0))}
    assert "nv_inference_request_success" in names
    assert not any(name.startswith("sluice_") for name in names)


def test_sequences_are_those_of_versions_that_keep_some():
    """None under way is 0; of other versions there is no sample."""
    assert ("sluice_sequences", "3") not in read_samples(make_version())
    assert read_samples(make_version()._replace(sequences=0))["sluice_sequences", "3"] == 0
    assert read_samples(make_version()._replace(sequences=5))["sluice_sequences", "3"] == 5


def test_no_version_has_no_samples():
    """Nothing, rather than zeros of nobody."""
    assert read_samples() == {}


def test_cache_has_counters_once_it_was_asked():
    """Triton's, in microseconds; none of versions that never looked."""
    changes = {"cache_hits": 4, "cache_hit_ns": 8_999, "cache_misses": 2, "cache_miss_ns": 6_000}
    samples = read_samples(make_version(**changes))
    expected = {
        "nv_cache_num_hits_per_model": 4,
        "nv_cache_num_misses_per_model": 2,
        "nv_cache_hit_duration_per_model": 8,
        "nv_cache_miss_duration_per_model": 6,
    }
    assert {name: samples[name, "3"] for name in expected} == expected
    assert not [name for name, *_ in read_samples(make_version()) if name.startswith("nv_cache")]


def test_cache_tells_what_it_holds():
    """Nothing where there is no cache."""
    usage = {"max_bytes": 100, "bytes": 60, "entries": 3, "evictions": 9}
    families = {family.name: family.lines for family in describe_cache(usage)}
    assert families == {name: [f"{name} {usage[key]}"] for name, (_, _, key) in CACHE_USAGE.items()}
    assert describe_cache(dict.fromkeys(usage, 0)) == []
