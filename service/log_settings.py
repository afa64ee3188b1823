"""What is logged, as the protocol's LogSettings names it: read, changed while serving, refused where it is not ours."""

import logging
import threading
from collections.abc import Mapping

from service.logs import FORMATS
from service.status import InvalidArgumentError

# By the setting's name, the levels that it lets through; debug events have a number, log_verbose_level, instead.
SWITCHES = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
VERBOSE = "log_verbose_level"
MAX_VERBOSE = 1
# The server's log goes to standard error: whoever starts it decides where that leads, not who calls it.
FILE = "log_file"
FORMAT = "log_format"


class LogSettings(logging.Filter):
    """The settings in force, and the filter that enforces them; safe to use from any thread.

    Parameters
    ----------
    level
        Lowest level that is logged, as configure_logs takes it.
    log_format
        "json" or "text".
    """

    def __init__(self, level: str, log_format: str):
        super().__init__()
        lowest = logging.getLevelNamesMapping()[level.upper()]
        self._lock = threading.Lock()
        self._values: dict[str, bool | int | str] = {name: lowest <= number for name, number in SWITCHES.items()}
        self._values |= {VERBOSE: int(lowest <= logging.DEBUG), FORMAT: log_format, FILE: ""}
        self._handlers: list[logging.Handler] = []

    def attach(self) -> None:
        """Rule the handlers that the process's log has now, which configure_logs has made."""
        self._handlers = logging.getLogger().handlers[:]
        for handler in self._handlers:
            handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether an event is logged."""
        if record.levelno < logging.INFO:
            return self._values[VERBOSE] > 0
        # The highest switch whose level the event reaches: what is worse than an error is an error.
        name = next(name for name, number in reversed(SWITCHES.items()) if record.levelno >= number)
        return bool(self._values[name])

    def read(self) -> dict[str, bool | int | str]:
        """Every setting by name: booleans, a number for the verbose level, texts."""
        with self._lock:
            return dict(self._values)

    def change(self, wanted: Mapping[str, bool | int | str]) -> dict[str, bool | int | str]:
        """Change some settings, all or none of them, and return all that are then in force.

        Raises
        ------
        InvalidArgumentError
            A name that is no setting, or a value that it cannot have; the text names it.
        """
        for name, value in wanted.items():
            _check(name, value)
        with self._lock:
            self._values = self._values | wanted
            if self._handlers:
                self._enforce()
            return dict(self._values)

    def _enforce(self) -> None:
        """Give events the form that is in force, and have those that nobody wants not even made."""
        for handler in self._handlers:
            handler.setFormatter(FORMATS[str(self._values[FORMAT])]())
        wanted = [number for name, number in SWITCHES.items() if self._values[name]]
        if self._values[VERBOSE]:
            wanted.append(logging.DEBUG)
        logging.getLogger().setLevel(min(wanted, default=logging.CRITICAL + 1))


def _check(name: str, value: bool | int | str) -> None:
    if name in SWITCHES:
        expected = "" if isinstance(value, bool) else "true or false"
    elif name == VERBOSE:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        expected = "" if is_number and 0 <= value <= MAX_VERBOSE else f"a whole number from 0 to {MAX_VERBOSE}"
    elif name == FORMAT:
        expected = "" if value in FORMATS else f"one of {', '.join(FORMATS)}"
    elif name == FILE:
        expected = "" if value == "" else "nothing: this server logs to standard error"
    else:
        known = ", ".join((*SWITCHES, VERBOSE, FORMAT, FILE))
        raise InvalidArgumentError(f"log setting {name!r} is unknown; there are {known}")
    if expected:
        raise InvalidArgumentError(f"log setting {name}: expected {expected}, given {value!r}")
