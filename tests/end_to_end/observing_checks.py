"""What an operator sees through NVIDIA's own client and a scrape; test_observing runs it in another process.

The environment's TARGET says whom to call, as Target.to_json writes it, METRICS where to scrape, and TRACES which file
the server traces to.
"""

import asyncio
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

ADDRESS = json.loads(os.environ["TARGET"])["address"]
TRACES = Path(os.environ["TRACES"])
METRICS = f"http://{os.environ['METRICS']}/metrics"
PHASES = ("compute_input", "compute_infer", "compute_output")
TIMING = {f"server_timing.{name}" for name in ("queue_ns", "compute_input_ns", "compute_infer_ns", "batch_size")}
# What promtool says of names that are Triton's.
TRITONS_LINT = (
    'counter metrics should have "_total" suffix',
    "metric names should not contain abbreviated units",
    'non-histogram and non-summary metrics should not have "_count" suffix',
)


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


def make_input(values, datatype, name="input"):
    """One input with raw contents."""
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def infer_adder(client, rows, version="1"):
    """One request of the model `adder`."""
    return client.infer("adder", [make_input(np.zeros((rows, 4), np.int64), "INT64")], model_version=version)


def read_statistics(client, name="adder", version="1"):
    """The only entry for one version."""
    [entry] = client.get_inference_statistics(name, version).model_stats
    assert (entry.name, entry.version) == (name, version)
    return entry


def scrape():
    """{(sample's name, model, version, reason or bound): value}."""
    with urllib.request.urlopen(METRICS, timeout=20) as answer:
        text = answer.read().decode()
    return {
        # The parser gives every counter OpenMetrics' suffix, those of Triton's names too.
        (
            sample.name if sample.name.startswith("sluice_") else sample.name.removesuffix("_total"),
            *(sample.labels.get(label) for label in ("model", "version", "reason", "le")),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# ---- configuration


def test_model_config_is_complete(client):
    """What the ONNX file says and what nobody wrote, as Triton would answer."""
    config = client.get_model_config("adder").config
    assert (config.name, config.platform, config.backend) == ("adder", "onnxruntime_onnx", "onnxruntime")
    assert (config.max_batch_size, config.default_model_filename) == (8, "model.onnx")
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [("input", 9, [4])]
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [("output", 9, [4])]
    assert config.HasField("dynamic_batching")
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    [group] = config.instance_group
    assert (group.name, group.count, group.kind) == ("adder_0", 1, 2)


def test_model_config_reads_as_json(client):
    """In the names of config.pbtxt, enumerations by name."""
    config = client.get_model_config("wide", as_json=True)["config"]
    assert config["name"] == "wide"
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP64", "dims": ["-1", "-1"]}]
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert "max_batch_size" not in config
    assert "dynamic_batching" not in config


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT64", "FP16", "BF16", "FP64", "BYTES"])
def test_model_config_names_every_datatype(client, datatype):
    """BYTES is a string there."""
    config = client.get_model_config(f"identity_{datatype}", as_json=True)["config"]
    expected = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    assert config["input"][0]["data_type"] == config["output"][0]["data_type"] == expected


# ---- statistics


def test_statistics_count_what_was_asked_for(client):
    """Requests, rows and runs, by the size of the batch; a time of the latest."""
    before = read_statistics(client)
    before_ms = time.time() * 1000
    for rows in (1, 2, 2, 5):
        infer_adder(client, rows)
    after = read_statistics(client)
    assert after.inference_count - before.inference_count == 10
    assert after.execution_count - before.execution_count == 4
    assert before_ms - 20 <= after.last_inference <= time.time() * 1000
    assert after.inference_stats.success.count - before.inference_stats.success.count == 4
    sizes = {batch.batch_size: batch for batch in after.batch_stats}
    assert {1, 2, 5} <= sizes.keys()
    assert sizes[2].compute_infer.count >= 2
    assert list(sizes) == sorted(sizes)


def test_statistics_times_are_parts_of_the_whole(client):
    """The queue and three phases, each counted as often as requests succeeded; nothing of a cache."""
    infer_adder(client, 1)
    stats = read_statistics(client).inference_stats
    parts = [stats.queue, *(getattr(stats, phase) for phase in PHASES)]
    assert {part.count for part in parts} == {stats.success.count}
    assert 0 < sum(part.ns for part in parts) <= stats.success.ns
    assert (stats.cache_hit.count, stats.cache_miss.count) == (0, 0)


def test_statistics_count_failures_with_their_time(client):
    """A request that does not fit, and one whose run fails: errors, no inferences."""
    before = read_statistics(client, "picker")
    for index in (np.array([99]), np.array([[1]])):
        with pytest.raises(InferenceServerException):
            client.infer("picker", [make_input(index, "INT64", "index")])
    after = read_statistics(client, "picker")
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 2
    assert after.inference_stats.fail.ns > before.inference_stats.fail.ns
    assert after.inference_count == before.inference_count


def test_statistics_of_all_models_of_one_and_of_one_version(client):
    """By name and then by number, versions apart."""
    infer_adder(client, 1, version="2")
    every = [(entry.name, entry.version) for entry in client.get_inference_statistics().model_stats]
    assert every == sorted(every)
    assert {("adder", "1"), ("adder", "2"), ("sums", "1")} <= set(every)
    one = client.get_inference_statistics("adder", as_json=True)["model_stats"]
    assert [entry["version"] for entry in one] == ["1", "2"]
    assert int(one[1]["inference_stats"]["success"]["count"]) >= 1


@pytest.mark.parametrize(
    ("name", "version", "status", "text"),
    [
        ("other", "", "NOT_FOUND", "Request for unknown model: 'other' is not found"),
        ("adder", "7", "NOT_FOUND", "'adder' version 7 is not found"),
        ("adder", "first", "NOT_FOUND", "'first': model 'adder' has no such label"),
        ("adder", "1st", "INVALID_ARGUMENT", "'1st': expected a positive number or a label"),
        ("", "1", "INVALID_ARGUMENT", "model name"),
    ],
)
def test_statistics_and_config_of_what_is_not_there_say_so(client, name, version, status, text):
    """The same from both calls."""
    for call in (client.get_inference_statistics, client.get_model_config):
        with pytest.raises(InferenceServerException, match=text) as raised:
            call(name, version)
        assert raised.value.status() == f"StatusCode.{status}"


def test_asyncio_client_reads_config_and_statistics():
    """Its second client, and inference beside."""

    async def ask():
        async with triton_async.InferenceServerClient(ADDRESS) as client:
            before = (await client.get_inference_statistics("adder", "2")).model_stats[0]
            rows = np.zeros((3, 4), np.int64)
            await asyncio.gather(
                *(client.infer("adder", [make_input(rows, "INT64")], model_version="2") for _ in range(20))
            )
            after = (await client.get_inference_statistics("adder", "2")).model_stats[0]
            return before, after, await client.get_model_config("adder", as_json=True), await client.get_log_settings()

    before, after, config, logs = asyncio.run(ask())
    assert after.inference_count - before.inference_count == 60
    assert after.inference_stats.success.count - before.inference_stats.success.count == 20
    assert config["config"]["max_batch_size"] == 8
    assert logs.settings["log_info"].bool_param


# ---- server timing


def read_timing(response):
    """{name: nanoseconds, or rows} of an answer's parameters, of which a stream's has one more."""
    timing = {name: value.int64_param for name, value in response.parameters.items()}
    timing.pop("triton_final_response", None)
    assert timing.keys() in (set(), TIMING)
    return timing


def test_server_timing_comes_with_the_answer_that_asks(client):
    """And with no other."""
    rows = [make_input(np.ones((2, 4), np.int64), "INT64")]
    started = time.monotonic_ns()
    answer = client.infer("adder", rows, model_version="1", parameters={"server_timing": True})
    elapsed = time.monotonic_ns() - started
    timing = read_timing(answer.get_response())
    assert timing["server_timing.batch_size"] == 2
    assert 0 < sum(value for name, value in timing.items() if name.endswith("_ns")) < elapsed
    assert answer.as_numpy("output").tolist() == [[10**12 + 1] * 4] * 2
    assert not read_timing(client.infer("adder", rows).get_response())


def test_server_timing_on_a_stream_comes_with_each_answer_that_asks():
    """Every other message asks."""

    async def ask_all():
        async def requests():
            for nonce in range(6):
                rows = [make_input(np.full((1, 4), nonce), "INT64")]
                yield {"model_name": "adder", "inputs": rows, "parameters": {"server_timing": nonce % 2 == 0}}

        async with triton_async.InferenceServerClient(ADDRESS) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(ask_all())
    assert all(error is None for _, error in answers)
    assert [bool(read_timing(result.get_response())) for result, _ in answers] == [True, False] * 3


def test_server_timing_of_another_type_is_refused(client):
    """By name."""
    with pytest.raises(InferenceServerException, match="parameter 'server_timing' is not a bool"):
        client.infer("adder", [make_input(np.ones((1, 4), np.int64), "INT64")], parameters={"server_timing": "yes"})


# ---- metadata


def test_extensions_name_what_works(client):
    """Each of them is shown to work by a check of this file or of triton_checks."""
    extensions = client.get_server_metadata().extensions
    assert {"binary_tensor_data", "logging", "model_configuration", "statistics", "trace"} <= set(extensions)
    assert list(extensions) == sorted(extensions)


# ---- metrics


def test_metrics_agree_with_statistics(client):
    """Two ways to the same counters."""
    infer_adder(client, 4)
    entry, samples = read_statistics(client), scrape()
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


@pytest.mark.skipif(os.environ["SLUICE_TRANSPORT"] != "native", reason="grpcio does not count its traffic")
def test_metrics_of_the_native_transport_rise_with_traffic(client):
    """Connections, calls and bytes, both ways."""
    infer_adder(client, 1)
    names = ("connections_total", "calls_total", "received_bytes_total", "sent_bytes_total")
    before = scrape()
    # A connection of its own, which grpcio's channels otherwise share.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with triton.InferenceServerClient(ADDRESS, channel_args=options) as other:
        infer_adder(other, 1)
        during = scrape()
    risen = {name: during[f"sluice_{name}", *(None,) * 4] - before[f"sluice_{name}", *(None,) * 4] for name in names}
    assert (risen["connections_total"], risen["calls_total"]) == (1, 1)
    assert risen["received_bytes_total"] > 32
    assert risen["sent_bytes_total"] > 32
    assert during["sluice_connections", *(None,) * 4] >= 2
    assert during["sluice_calls", *(None,) * 4] == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
def test_promtool_finds_no_fault_but_with_tritons_names(client):
    """Prometheus's own linter: our metrics pass it, and of Triton's the names alone do not."""
    infer_adder(client, 1)
    with urllib.request.urlopen(METRICS, timeout=20) as answer:
        text = answer.read()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    complaints = done.stderr.decode().splitlines() + done.stdout.decode().splitlines()
    others = [one for one in complaints if not (one.startswith("nv_") and one.endswith(TRITONS_LINT))]
    assert others == []


# ---- log settings


def test_log_settings_are_read_and_changed(client):
    """As messages and as JSON; what is changed is in the answer and stays."""
    before = client.get_log_settings(as_json=True)["settings"]
    assert before["log_info"] == {"bool_param": True}
    assert before["log_format"] == {"string_param": "json"}
    changed = client.update_log_settings({"log_warning": False, "log_verbose_level": 1})
    assert not changed.settings["log_warning"].bool_param
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 1
    client.update_log_settings({"log_warning": True, "log_verbose_level": 0})
    assert client.get_log_settings(as_json=True)["settings"] == before


@pytest.mark.parametrize(
    ("name", "value"), [("log_file", "/tmp/server.log"), ("log_format", "ISO8601"), ("log_verbose_level", 7)]
)
def test_log_settings_that_are_not_ours_are_refused_by_name(client, name, value):
    """And nothing changes."""
    before = client.get_log_settings(as_json=True)
    with pytest.raises(InferenceServerException, match=f"log setting {name}: expected") as raised:
        client.update_log_settings({"log_info": False, name: value})
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert client.get_log_settings(as_json=True) == before


# ---- trace settings


def read_traces():
    """The entries of the trace file; none of one that is being written."""
    try:
        return json.loads(TRACES.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def await_traces(number):
    """The entries of the trace file, once so many requests are in it."""
    until = time.monotonic() + 20
    while True:
        entries = read_traces()
        if len(entries) >= 2 * number:
            return entries
        assert time.monotonic() < until, entries


def test_traces_of_a_model_go_to_the_file_until_their_number_is_reached(client):
    """In Triton's form: two entries a request, by one id."""
    settings = {"trace_level": "TIMESTAMPS", "trace_rate": "2", "trace_count": "3"}
    answer = client.update_trace_settings("adder", settings)
    assert list(answer.settings["trace_level"].value) == ["TIMESTAMPS"]
    for nonce in range(10):
        rows = [make_input(np.zeros((1, 4), np.int64), "INT64")]
        client.infer("adder", rows, model_version="1", request_id=f"traced {nonce}")
        client.infer("sums", [make_input(np.zeros((1, 3), np.float32), "FP32", name) for name in "ab"])
    entries = await_traces(3)
    assert [entry["request_id"] for entry in entries[::2]] == ["traced 0", "traced 2", "traced 4"]
    assert {entry["model_name"] for entry in entries[::2]} == {"adder"}
    for entry, times in zip(entries[::2], entries[1::2], strict=True):
        assert entry["id"] == times["id"]
        moments = [moment["ns"] for moment in times["timestamps"]]
        assert moments == sorted(moments)
    assert client.get_trace_settings("adder", as_json=True)["settings"]["trace_count"] == {"value": ["0"]}
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"] == {"value": ["OFF"]}
    client.update_trace_settings("adder", dict.fromkeys(settings))
    assert client.get_trace_settings("adder") == client.get_trace_settings()


@pytest.mark.parametrize(
    ("settings", "model", "status", "text"),
    [
        ({"trace_level": ["TENSORS"]}, "", "INVALID_ARGUMENT", "trace setting trace_level: expected one of"),
        ({"trace_file": "/tmp/trace"}, "", "INVALID_ARGUMENT", "trace setting trace_file: expected"),
        ({"trace_rate": "none"}, "adder", "INVALID_ARGUMENT", "trace setting trace_rate: expected a whole number"),
        ({"trace_rate": "1"}, "other", "NOT_FOUND", "Request for unknown model: 'other' is not found"),
    ],
)
def test_trace_settings_that_cannot_be_are_refused_by_name(client, settings, model, status, text):
    """As with log settings."""
    with pytest.raises(InferenceServerException, match=text) as raised:
        client.update_trace_settings(model, settings)
    assert raised.value.status() == f"StatusCode.{status}"
