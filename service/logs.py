"""Structured logs on one stream: JSON lines or text, with the request's id and without secrets."""

import contextlib
import contextvars
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TextIO

REDACTED = "[redacted]"
SECRET_NAMES = re.compile(r"password|passwd|secret|token|credential|authorization|cookie|api_?key|private_?key", re.I)
SECRET_TEXTS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)|(?<=\bBearer )\S+|(?<=\bBasic )\S+",
    re.I | re.S,
)

# What every LogRecord has; anything else on one was given with `extra` and is a field of the event.
RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_request_id = contextvars.ContextVar("request_id", default="")


@contextlib.contextmanager
def bind_request_id(request_id: str) -> Iterator[None]:
    """Give every event logged inside the block, in this thread or task, the field `request_id`."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def configure_logs(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send all events of the process to `stream`, standard error by default; a second call replaces the first.

    Parameters
    ----------
    level
        The lowest level that is logged: "debug", "info", "warning" or "error".
    log_format
        "json" for one object a line, "text" for people.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(FORMATS[log_format]())
    root = logging.getLogger()
    for previous in root.handlers[:]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


class LineLimit:
    """Allows so many events a second and no more; for events that a client can bring about at will."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic):
        self._per_second = per_second
        self._clock = clock
        self._second, self._allowed = -1, 0

    def allows(self) -> bool:
        """Whether one more event may be logged now; counts it when it may."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._allowed = second, 0
        self._allowed += 1
        return self._allowed <= self._per_second


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, request_id where there is one, the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one event."""
        return json.dumps(collect_fields(record), default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line for people: time, level, event, then fields as name=value; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one event."""
        fields = collect_fields(record)
        head = f"{fields.pop('time')} {fields.pop('level'):<7} {_in_one_line(fields.pop('event'))}"
        fields.pop("logger")
        traceback = fields.pop("traceback", "")
        tail = "".join(f" {name}={json.dumps(value, default=str)}" for name, value in fields.items())
        return f"{head}{tail}\n{traceback}".rstrip("\n")


FORMATS: dict[str, type[logging.Formatter]] = {"json": JsonFormatter, "text": TextFormatter}


def collect_fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of one event, with what is secret taken out."""
    fields: dict[str, object] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _redact_text(record.getMessage()),
    }
    if request_id := _request_id.get():
        fields["request_id"] = request_id
    for name, value in vars(record).items():
        if name not in RECORD_ATTRIBUTES:
            fields[name] = redact(name, value)
    if record.exc_info and record.exc_info[0] is not None:
        fields["traceback"] = _redact_text(logging.Formatter().formatException(record.exc_info))
    return fields


def redact(name: str, value: object) -> object:
    """The value as it may be logged: a number as it is, no text whose name says that it is secret, no key in a text."""
    if isinstance(value, bool | int | float | None):
        return value
    if SECRET_NAMES.search(name):
        return REDACTED
    if isinstance(value, dict):
        return {str(key): redact(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(name, item) for item in value]
    return _redact_text(str(value))


def _redact_text(text: str) -> str:
    return SECRET_TEXTS.sub(REDACTED, text)


def _in_one_line(text: object) -> str:
    """Line breaks from outside must not look like events of ours."""
    return str(text).replace("\r", "\\r").replace("\n", "\\n")
