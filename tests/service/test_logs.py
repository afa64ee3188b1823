"""Logs: one event a line, with fields and request id, without secrets and without forged lines."""

import io
import json
import logging
import warnings

import pytest

from service.logs import REDACTED, LineLimit, bind_request_id, configure_logs

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQ==\n-----END PRIVATE KEY-----"


@pytest.fixture
def stream():
    """Where the log goes; the handlers of before come back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def read_events(stream):
    """The events of a JSON log."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_log_writes_one_object_with_the_fields_of_the_event(stream):
    """An event is its name, when, how grave, from where, and its own fields."""
    configure_logs("info", "json", stream)
    logging.getLogger("service.server").info("ready", extra={"address": "127.0.0.1:8001", "models": ["a", "b"]})
    (event,) = read_events(stream)
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "info",
        "logger": "service.server",
        "event": "ready",
        "address": "127.0.0.1:8001",
        "models": ["a", "b"],
    }


def test_log_below_its_level_is_silent(stream):
    """The level is a floor."""
    configure_logs("warning", "json", stream)
    logging.getLogger("x").info("no")
    logging.getLogger("x").warning("yes")
    assert [event["event"] for event in read_events(stream)] == ["yes"]


def test_request_id_bound_is_on_every_event_of_the_block_only(stream):
    """What belongs to a request can be found by its id."""
    configure_logs("info", "json", stream)
    logger = logging.getLogger("x")
    with bind_request_id("r-1"):
        logger.info("in")
    logger.info("out")
    assert [event.get("request_id") for event in read_events(stream)] == ["r-1", None]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_in_fields_messages_and_tracebacks_are_left_out(stream, log_format):
    """No key, token or password reaches the log by any of the ways into it."""
    configure_logs("info", log_format, stream)
    logger = logging.getLogger("x")
    logger.info("call %s", "Bearer abc123", extra={"api_token": "abc123", "metadata": {"authorization": "abc123"}})
    logger.info(KEY)
    try:
        raise ValueError(f"cannot read {KEY}")
    except ValueError:
        logger.exception("failed", extra={"args_given": ["Bearer abc123"]})
    text = stream.getvalue()
    assert "abc123" not in text
    assert "MIIEvQ" not in text
    assert text.count(REDACTED) == 6


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_numbers_with_a_name_that_sounds_secret_are_kept(stream, log_format):
    """A count of tokens is no token."""
    configure_logs("info", log_format, stream)
    logging.getLogger("x").info("done", extra={"tokens": 17})
    assert "17" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_line_breaks_in_an_event_do_not_make_a_second_event(stream, log_format):
    """A request id or name from outside cannot forge an event."""
    configure_logs("info", log_format, stream)
    with bind_request_id("a\nb"):
        logging.getLogger("x").info("one\ntwo", extra={"model": "m\nlevel=error"})
    assert len(stream.getvalue().splitlines()) == 1


def test_text_log_shows_fields_and_traceback(stream):
    """People read the event first, then its fields, then where it happened."""
    configure_logs("info", "text", stream)
    try:
        raise ValueError("no such file")
    except ValueError:
        logging.getLogger("x").exception("model failed", extra={"model": "digits"})
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(' error   model failed model="digits"')
    assert rest[-1] == "ValueError: no such file"


def test_warnings_of_libraries_reach_the_log(stream):
    """A warning would else be a stray line that is no event."""
    configure_logs("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    assert "old" in read_events(stream)[0]["event"]


def test_configure_logs_again_replaces_the_stream(stream):
    """No event is written twice."""
    configure_logs("info", "json", io.StringIO())
    configure_logs("info", "json", stream)
    logging.getLogger("x").info("once")
    assert len(read_events(stream)) == 1


def test_line_limit_allows_so_many_each_second():
    """The first ones of a second pass, the rest do not, and the next second begins anew."""
    now = [5.0]
    limit = LineLimit(2, clock=lambda: now[0])
    assert [limit.allows() for _ in range(4)] == [True, True, False, False]
    now[0] = 6.1
    assert limit.allows()
