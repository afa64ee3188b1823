"""The trace settings: the server's, a model's own, and what is refused by name."""

import pytest

from service.status import InvalidArgumentError
from service.trace_settings import TraceSettings

ON = {"trace_level": ["TIMESTAMPS"]}


@pytest.fixture
def applied():
    """The rates that were applied, the last ones in force."""
    return []


@pytest.fixture
def settings(applied):
    """Settings of a server that has a file."""
    return TraceSettings("/traces/all.json", applied.append)


def test_settings_begin_as_tritons(settings):
    """All that the protocol names, and nothing traced."""
    assert settings.read() == {
        "trace_level": ["OFF"],
        "trace_rate": ["1000"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
        "trace_file": ["/traces/all.json"],
        "trace_mode": ["triton"],
    }
    assert settings.rate("any") == 0


def test_change_is_answered_and_applied(settings, applied):
    """The rate of each model follows."""
    answer = settings.change({**ON, "trace_rate": ["5"], "log_frequency": ["20"]})
    assert (answer["trace_level"], answer["trace_rate"], answer["log_frequency"]) == (["TIMESTAMPS"], ["5"], ["20"])
    assert applied[-1] == {"": 5}
    assert settings.traces_per_file == 20
    settings.change({"trace_level": ["OFF"]})
    assert applied[-1] == {"": 0}


def test_model_has_what_it_chose_and_else_the_servers(settings):
    """Each setting by itself, and until it is taken back."""
    settings.change({**ON, "trace_rate": ["10"]})
    settings.change({"trace_rate": ["2"]}, "own")
    settings.change({"trace_level": ["OFF"]}, "quiet")
    assert [settings.rate(model) for model in ("own", "quiet", "other")] == [2, 0, 10]
    settings.change({"trace_rate": ["20"]})
    assert settings.read("own")["trace_rate"] == ["2"]
    settings.change({"trace_rate": []}, "own")
    settings.change({"trace_level": []}, "quiet")
    assert [settings.rate(model) for model in ("own", "quiet", "other")] == [20, 20, 20]
    settings.change({"trace_rate": [], "trace_level": []})
    assert settings.read()["trace_rate"] == ["1000"]
    assert settings.rate("own") == 0


def test_count_ends_tracing_and_tells_what_is_left(settings, applied):
    """The server's is shared by all models without one of their own."""
    settings.change({**ON, "trace_rate": ["1"], "trace_count": ["3"]})
    assert [settings.take("one"), settings.take("two")] == [True, True]
    assert settings.read()["trace_count"] == ["1"]
    settings.change({"trace_count": ["1"]}, "own")
    assert [settings.take("own"), settings.take("own")] == [True, False]
    assert settings.rate("own") == 0
    assert applied[-1] == {"": 1, "own": 0}
    assert [settings.take("one"), settings.take("two")] == [True, False]
    assert applied[-1] == {"": 0, "own": 0}
    settings.change({"trace_count": []}, "own")
    settings.change({"trace_count": ["-1"]})
    assert settings.take("own")
    assert settings.read("own")["trace_count"] == ["-1"]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"trace_level": ["TENSORS"]}, "trace_level: expected one of OFF, TIMESTAMPS, given 'TENSORS'"),
        ({"trace_level": ["TIMESTAMPS", "TENSORS"]}, "trace_level: expected one of"),
        ({"trace_rate": ["0"]}, "trace_rate: expected a whole number from 1 to"),
        ({"trace_rate": ["1.5"]}, "trace_rate: expected a whole number"),
        ({"trace_rate": ["1", "2"]}, "trace_rate: expected a whole number"),
        ({"trace_rate": ["99999999999999999999"]}, "trace_rate: expected a whole number"),
        ({"trace_rate": ["٣"]}, "trace_rate: expected a whole number"),
        ({"trace_count": ["-2"]}, "trace_count: expected a whole number from -1 to"),
        ({"log_frequency": ["-1"]}, "log_frequency: expected a whole number from 0 to"),
        ({"trace_file": ["/tmp/other"]}, "trace_file: expected '/traces/all.json', which cannot be changed"),
        ({"trace_mode": ["opentelemetry"]}, "trace_mode: expected 'triton', which cannot be changed"),
        ({"trace_colour": ["red"]}, "trace setting 'trace_colour' is unknown; there are trace_level, trace_rate"),
    ],
)
def test_setting_that_cannot_be_is_refused_by_name(settings, applied, wanted, text):
    """And nothing that came with it is changed."""
    before = settings.read()
    with pytest.raises(InvalidArgumentError, match=text):
        settings.change({"trace_count": ["5"], **wanted})
    assert settings.read() == before
    assert not applied


def test_file_and_mode_may_be_given_as_they_are(settings):
    """Clients send back what they read."""
    settings.change({name: values for name, values in settings.read().items()})


def test_log_frequency_is_the_servers(settings):
    """There is one file for all models."""
    with pytest.raises(InvalidArgumentError, match="log_frequency: expected for the server, given for model 'own'"):
        settings.change({"log_frequency": ["5"]}, "own")


def test_server_without_a_file_cannot_be_made_to_trace(applied):
    """Which file is not a client's to say."""
    settings = TraceSettings("", applied.append)
    assert settings.read()["trace_file"] == [""]
    with pytest.raises(
        InvalidArgumentError, match="trace_level: expected OFF: this server was started without trace_file"
    ):
        settings.change(ON)
    settings.change({"trace_level": ["OFF"], "trace_rate": ["7"]})
