"""The changes of traffic that were made from a state folder: who, when, what, and what was before."""

import dataclasses
import json
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certs.files import replace_file

FILE = "traffic_history.json"
# Older changes are forgotten.
MOST_CHANGES = 200
UNDER_WAY = "under way"
DONE = "done"


class TrafficHistoryError(Exception):
    """The history cannot be read; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of a model's weights.

    Attributes
    ----------
    number
        Counts the changes of a state folder from 1.
    time
        When it began, in UTC, as ISO 8601 has it.
    what
        The command, in its own words.
    old, new
        Weights in force by version, before it and, unless it stopped on its way, after it.
    overrides, lasting
        What the admin had been given before it, by version, and what the file said.
    is_for_good
        Whether it changed the file.
    outcome
        How it ended: DONE, UNDER_WAY, or why it is neither.
    """

    model: str
    what: str
    old: Mapping[int, int]
    new: Mapping[int, int]
    overrides: Mapping[int, int]
    lasting: Mapping[int, int]
    is_for_good: bool
    outcome: str = UNDER_WAY
    number: int = 0
    time: str = ""
    user: str = ""


class TrafficHistory:
    """The changes of a state folder, in one file; whoever writes holds the gateway's lock.

    Parameters
    ----------
    state_folder
        Where the file is.
    """

    def __init__(self, state_folder: Path) -> None:
        self._path = state_folder / FILE

    def read(self) -> list[Change]:
        """All changes that are remembered, the oldest first; none where there is no file."""
        try:
            return [_build_change(data) for data in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TrafficHistoryError(f"{self._path}: {error!r}; without the file there is no history") from None

    def find_last(self, model: str | None) -> Change | None:
        """The last change of a model, or of any."""
        return next((change for change in reversed(self.read()) if model in (None, change.model)), None)

    def add(self, change: Change) -> Change:
        """Note a change, with the next number, this moment and this user, and return it so."""
        changes = self.read()
        number = changes[-1].number + 1 if changes else 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        noted = dataclasses.replace(change, number=number, time=now, user=find_user())
        self._write([*changes, noted])
        return noted

    def note_outcome(self, number: int, outcome: str) -> None:
        """Note how a change ended; one that is forgotten already stays so."""
        changes = self.read()
        self._write([dataclasses.replace(one, outcome=outcome) if one.number == number else one for one in changes])

    def _write(self, changes: list[Change]) -> None:
        data = [dataclasses.asdict(change) for change in changes[-MOST_CHANGES:]]
        replace_file(self._path, json.dumps(data, indent=1).encode())


def find_user() -> str:
    """The name of the user that this process runs for, or its number where that has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _build_change(data: Mapping[str, Any]) -> Change:
    weights = {
        name: {int(number): int(weight) for number, weight in data[name].items()}
        for name in ("old", "new", "overrides", "lasting")
    }
    return Change(**{**data, **weights})
