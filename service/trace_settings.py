"""What is traced, as the protocol's TraceSetting names it: for the server, and for models that have their own."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence

from service.status import InvalidArgumentError

LEVELS = ("OFF", "TIMESTAMPS")
UNLIMITED = -1
MAX_NUMBER = 2**31 - 1
# The least that each number may be.
NUMBERS = {"trace_rate": 1, "trace_count": UNLIMITED, "log_frequency": 0}
DEFAULTS = {"trace_level": "OFF", "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0"}
FILE, MODE, MODE_VALUE = "trace_file", "trace_mode", "triton"
SERVER = ""


class TraceSettings:
    """The settings in force; safe to use from any thread.

    Parameters
    ----------
    file
        Where traces go, which is for whoever starts the server to say; empty when nothing can be traced.
    apply
        Told of every change, with each model's rate by name, "" for all others; 0 for none.
    """

    def __init__(self, file: str, apply: Callable[[dict[str, int]], None]):
        self._file = file
        self._apply = apply
        self._lock = threading.RLock()
        # By model, "" for the server: what was set, and how many traces may still come where there is a limit.
        self._chosen: dict[str, dict[str, str]] = {SERVER: dict(DEFAULTS)}
        self._left: dict[str, int] = {SERVER: UNLIMITED}

    def read(self, model: str = SERVER) -> dict[str, list[str]]:
        """Every setting in force for a model, or for the server, by name."""
        with self._lock:
            values = {name: self._find(name, model) for name in DEFAULTS}
            values["trace_count"] = str(self._left[self._owner("trace_count", model)])
            return {name: [value] for name, value in {**values, FILE: self._file, MODE: MODE_VALUE}.items()}

    def change(self, wanted: Mapping[str, Sequence[str]], model: str = SERVER) -> dict[str, list[str]]:
        """Change some settings, all or none of them; no value takes back what was chosen. Return those in force.

        Raises
        ------
        InvalidArgumentError
            A name that is no setting, or a value that it cannot have; the text names it.
        """
        for name, values in wanted.items():
            self._check(name, list(values), model)
        with self._lock:
            chosen = self._chosen.setdefault(model, {})
            for name, values in wanted.items():
                if values:
                    chosen[name] = values[0]
                elif model == SERVER:
                    chosen[name] = DEFAULTS[name]
                else:
                    chosen.pop(name, None)
            if "trace_count" in wanted:
                self._recount(model)
            self._apply_rates()
            return self.read(model)

    def _apply_rates(self) -> None:
        self._apply({model: self.rate(model) for model in self._chosen})

    def _recount(self, model: str) -> None:
        if "trace_count" in self._chosen[model]:
            self._left[model] = int(self._chosen[model]["trace_count"])
        else:
            self._left.pop(model, None)

    def rate(self, model: str) -> int:
        """One request in how many of a model is traced now, 0 for none."""
        with self._lock:
            is_on = self._find("trace_level", model) != "OFF" and self._left[self._owner("trace_count", model)] != 0
            return int(self._find("trace_rate", model)) if is_on else 0

    def take(self, model: str) -> bool:
        """Count one trace of a model; False when it is one too many."""
        with self._lock:
            owner = self._owner("trace_count", model)
            if self._left[owner] == 0:
                return False
            if self._left[owner] != UNLIMITED:
                self._left[owner] -= 1
                if self._left[owner] == 0:
                    self._apply_rates()
            return True

    @property
    def traces_per_file(self) -> int:
        """How many traces a file gets, 0 for all."""
        return int(self._find("log_frequency", SERVER))

    def _owner(self, name: str, model: str) -> str:
        """Whose choice holds for a model: its own, else the server's."""
        return model if name in self._chosen.get(model, {}) else SERVER

    def _find(self, name: str, model: str) -> str:
        return self._chosen[self._owner(name, model)][name]

    def _check(self, name: str, values: list[str], model: str) -> None:
        if name == "log_frequency" and model != SERVER:
            raise InvalidArgumentError(f"trace setting {name}: expected for the server, given for model {model!r}")
        if name in (FILE, MODE):
            given = [self._file] if name == FILE else [MODE_VALUE]
            expected = "" if values == given else f"{given[0]!r}, which cannot be changed while serving"
        elif name == "trace_level":
            expected = self._check_level(values)
        elif name in NUMBERS:
            least = NUMBERS[name]
            is_number = len(values) == 1 and re.fullmatch(r"-?[0-9]{1,10}", values[0]) is not None
            fits = not values or (is_number and least <= int(values[0]) <= MAX_NUMBER)
            expected = "" if fits else f"a whole number from {least} to {MAX_NUMBER}"
        else:
            known = ", ".join((*DEFAULTS, FILE, MODE))
            raise InvalidArgumentError(f"trace setting {name!r} is unknown; there are {known}")
        if expected:
            given = repr(", ".join(values)) if values else "nothing"
            raise InvalidArgumentError(f"trace setting {name}: expected {expected}, given {given}")

    def _check_level(self, values: list[str]) -> str:
        if values and (len(values) != 1 or values[0] not in LEVELS):
            return f"one of {', '.join(LEVELS)}"
        if values == ["TIMESTAMPS"] and not self._file:
            return "OFF: this server was started without trace_file"
        return ""
