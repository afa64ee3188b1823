"""What an operator sees of a server's models through NVIDIA's own client; test_observing runs it in another process.

The environment's TARGET says whom to call, as Target.to_json writes it.
"""

import asyncio
import json
import os
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_async
from tritonclient.utils import InferenceServerException

from tests.end_to_end.triton_calls import infer_adder, make_input, read_statistics

ADDRESS = json.loads(os.environ["TARGET"])["address"]
PHASES = ("compute_input", "compute_infer", "compute_output")
TIMING = {f"server_timing.{name}" for name in ("queue_ns", "compute_input_ns", "compute_infer_ns", "batch_size")}


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


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
    before = read_statistics(client, "adder")
    before_ms = time.time() * 1000
    for rows in (1, 2, 2, 5):
        infer_adder(client, rows)
    after = read_statistics(client, "adder")
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
    stats = read_statistics(client, "adder").inference_stats
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
