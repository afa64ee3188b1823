"""What a scrape shows of what NVIDIA's client asked for; test_observing runs it in another process.

The environment's TARGET says whom to call, as Target.to_json writes it, and METRICS where to scrape.
"""

import json
import os

import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from tests.end_to_end.metrics_page import read_page
from tests.end_to_end.triton_calls import infer_adder, make_input, read_statistics

ADDRESS = json.loads(os.environ["TARGET"])["address"]
PHASES = ("compute_input", "compute_infer", "compute_output")


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def scrape():
    """{(sample's name, model, version, reason or bound): value}."""
    return {
        # The parser gives every counter OpenMetrics' suffix, those of Triton's names too.
        (
            sample.name if sample.name.startswith("sluice_") else sample.name.removesuffix("_total"),
            *(sample.labels.get(label) for label in ("model", "version", "reason", "le")),
        ): sample.value
        for family in text_string_to_metric_families(read_page(os.environ["METRICS"]))
        for sample in family.samples
    }


def test_metrics_agree_with_statistics(client):
    """Two ways to the same counters."""
    infer_adder(client, 4)
    entry, samples = read_statistics(client, "adder"), scrape()
    key = ("adder", "1", None, None)
    stats = entry.inference_stats
    assert samples["nv_inference_request_success", *key] == stats.success.count
    assert samples["nv_inference_count", *key] == entry.inference_count
    assert samples["nv_inference_exec_count", *key] == entry.execution_count
    assert samples["nv_inference_pending_request_count", *key] == 0
    assert 0 < samples["nv_model_load_duration_secs", *key] < 60
    assert samples["nv_inference_request_duration_us", *key] == stats.success.ns // 1000
    assert samples["nv_inference_queue_duration_us", *key] == stats.queue.ns // 1000
    for phase in PHASES:
        assert samples[f"nv_inference_{phase}_duration_us", *key] == getattr(stats, phase).ns // 1000
    assert samples["sluice_request_duration_seconds_count", *key] == stats.success.count
    assert samples["sluice_run_duration_seconds_count", *key] == entry.execution_count


def test_metrics_tell_failures_by_reason(client):
    """The run's, and the request's own."""
    before = scrape()
    for index in (np.array([99]), np.array([[1]])):
        with pytest.raises(InferenceServerException):
            client.infer("picker", [make_input(index, "INT64", "index")])
    after = scrape()
    keys = {
        r: ("nv_inference_request_failure", "picker", "1", r, None)
        for r in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    risen = {reason: after[key] - before[key] for reason, key in keys.items()}
    assert risen == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 1, "OTHER": 1}


def test_metrics_of_machine_and_process_are_there():
    """Under Triton's names, and those of every Prometheus client."""
    samples = scrape()
    nobody = (None,) * 4
    assert 0 <= samples["nv_cpu_utilization", *nobody] <= 1
    assert 0 < samples["nv_cpu_memory_used_bytes", *nobody] < samples["nv_cpu_memory_total_bytes", *nobody]
    assert samples["process_resident_memory_bytes", *nobody] > 0
