"""The log settings: what they let through, what they refuse, by name."""

import io
import json
import logging

import pytest

from service.log_settings import LogSettings
from service.logs import configure_logs
from service.status import InvalidArgumentError

NAMES = {"log_info", "log_warning", "log_error", "log_verbose_level", "log_format", "log_file"}


@pytest.fixture
def stream():
    """Where the process's log goes; afterwards it is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def settings(stream):
    """Settings that rule that log."""
    made = LogSettings("info", "json")
    made.attach()
    return made


def log_all(stream):
    """Log an event of each level; the levels that came out."""
    stream.seek(0)
    stream.truncate()
    logger = logging.getLogger("test")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logger.log(level, "event")
    return [json.loads(line)["level"] for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", (True, True, True, 1)),
        ("info", (True, True, True, 0)),
        ("warning", (False, True, True, 0)),
        ("error", (False, False, True, 0)),
    ],
)
def test_settings_begin_with_the_level_of_the_start(level, expected):
    """As Triton names them."""
    values = LogSettings(level, "text").read()
    assert tuple(values[name] for name in ("log_info", "log_warning", "log_error", "log_verbose_level")) == expected
    assert (values["log_format"], values["log_file"]) == ("text", "")
    assert values.keys() == NAMES


def test_levels_are_switched_each_by_itself(settings, stream):
    """One can be off between two that are on."""
    assert log_all(stream) == ["info", "warning", "error", "critical"]
    settings.change({"log_warning": False, "log_verbose_level": 1})
    assert log_all(stream) == ["debug", "info", "error", "critical"]
    settings.change({"log_info": False, "log_error": False, "log_verbose_level": 0})
    assert log_all(stream) == []
    settings.change({"log_warning": True})
    assert log_all(stream) == ["warning"]


def test_events_that_nobody_wants_are_not_made(settings):
    """The logger itself says no, so that a call costs next to nothing."""
    settings.change({"log_info": False})
    assert not logging.getLogger("test").isEnabledFor(logging.INFO)
    settings.change({"log_verbose_level": 1})
    assert logging.getLogger("test").isEnabledFor(logging.DEBUG)


def test_format_changes_for_the_next_event(settings, stream):
    """From JSON to text and back."""
    settings.change({"log_format": "text"})
    logging.getLogger("test").info("event")
    assert " info    event" in stream.getvalue()
    settings.change({"log_format": "json"})
    assert log_all(stream)[0] == "info"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("log_info", 1, "log_info: expected true or false, given 1"),
        ("log_error", "yes", "log_error: expected true or false, given 'yes'"),
        ("log_verbose_level", 2, "log_verbose_level: expected a whole number from 0 to 1, given 2"),
        ("log_verbose_level", True, "log_verbose_level: expected a whole number"),
        ("log_format", "ISO8601", "log_format: expected one of json, text, given 'ISO8601'"),
        ("log_file", "/tmp/log", "log_file: expected nothing: this server logs to standard error"),
        ("log_info", None, "log_info: expected true or false, given None"),
        ("log_colour", True, "log setting 'log_colour' is unknown; there are log_info, log_warning"),
    ],
)
def test_setting_that_is_not_ours_is_refused_by_name(settings, name, value, text):
    """And nothing that came with it is changed."""
    before = settings.read()
    with pytest.raises(InvalidArgumentError, match=text):
        settings.change({"log_warning": False, name: value})
    assert settings.read() == before
