"""What NVIDIA's client reads and changes of a server's log and traces; test_observing runs it in another process.

The environment's TARGET says whom to call, as Target.to_json writes it, and TRACES which file the server traces to.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.end_to_end.triton_calls import make_input

TIMEOUT_S = 60
ADDRESS = json.loads(os.environ["TARGET"])["address"]
TRACES = Path(os.environ["TRACES"])


@pytest.fixture(scope="module")
def client():
    """Triton's synchronous client."""
    with triton.InferenceServerClient(ADDRESS) as client:
        yield client


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
    until = time.monotonic() + TIMEOUT_S
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
