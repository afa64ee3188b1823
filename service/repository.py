"""The models that this server knows: the state of every version, and which one a caller means."""

import enum
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from service.serving_config import ServingConfig
from service.status import InvalidArgumentError, NotFoundError, UnavailableError
from service.version_policy import LABEL

WIRE_VERSION = re.compile(r"[0-9]{1,18}")
# The reason of versions that nobody has loaded yet or that were unloaded: Triton's word.
UNLOADED = "unloaded"
# Triton's words again, as below those about what is not found: its clients look for them.
VERSION_REFUSED = "failed to get model version from specified version string"
# The reason of versions that are READY and dormant.
DORMANT = "not in memory; the next request loads it"

logger = logging.getLogger(__name__)


class State(enum.Enum):
    """Whether a model version serves; the value is the word on the wire, where REMOVED never comes."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"
    REMOVED = "REMOVED"


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model, as it is now.

    Attributes
    ----------
    version
        None for a model that has no version to load.
    reason
        Why it is not READY; of one that is, why it was not loaded again, or empty.
    config
        How it serves; None unless it is READY, and of a dormant version perhaps not read yet.
    load_s
        How long loading it took, in seconds; 0 unless it is READY and in memory.
    is_dormant
        Whether it is not in memory and the next request, which waits for that, has it loaded: it is READY nevertheless.
    """

    name: str
    version: int | None
    state: State
    reason: str = ""
    config: ServingConfig | None = None
    load_s: float = 0.0
    is_dormant: bool = False


class Repository:
    """The versions of all models by name and number; safe to use from any thread.

    It only tells: what it holds follows what the lifecycle has put into the engine.
    """

    def __init__(self):
        # Held while listeners are called, so that each sees the changes in their order; they may read the repository.
        self._lock = threading.RLock()
        self._models: dict[str, dict[int | None, ModelVersion]] = {}
        self._labels: dict[str, Mapping[str, int]] = {}
        self._listeners: list[Callable[[ModelVersion], None]] = []
        self._describe: Callable[[ModelVersion], ModelVersion] | None = None

    def subscribe(self, listener: Callable[[ModelVersion], None]) -> None:
        """Call `listener` with each version that there is and, in the thread that loads, whenever its state changes."""
        with self._lock:
            for version in self._list_all():
                listener(version)
            self._listeners.append(listener)

    def publish(self, entries: Iterable[ModelVersion], labels: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """Take over the states of versions at one moment, and all labels of the models that are keys of `labels`."""
        with self._lock:
            changed = [entry for entry in entries if self._take_over(entry)]
            self._labels.update(labels or {})
            for entry in changed:
                log_state(entry)
                for listener in self._listeners:
                    listener(entry)

    def describe_by(self, describe: Callable[[ModelVersion], ModelVersion]) -> None:
        """Have find_described call `describe` with a version whose configuration nobody has read yet."""
        self._describe = describe

    def note_config(self, entry: ModelVersion, config: ServingConfig) -> ModelVersion:
        """Add its configuration to a version; nothing changes where the version is another one by now."""
        described = replace(entry, config=config)
        with self._lock:
            versions = self._models.get(entry.name, {})
            if versions.get(entry.version) is entry:
                versions[entry.version] = described
        return described

    def _take_over(self, entry: ModelVersion) -> bool:
        """Note one version; False when nothing of it has changed."""
        versions = self._models.setdefault(entry.name, {})
        previous = versions.pop(entry.version, None)
        if entry.state is not State.REMOVED:
            versions[entry.version] = entry
        if not versions:
            del self._models[entry.name]
            self._labels.pop(entry.name, None)
        return entry != previous and not (previous is None and entry.state is State.REMOVED)

    def _list_all(self) -> list[ModelVersion]:
        return [entry for versions in self._models.values() for entry in versions.values()]

    def index(self) -> list[ModelVersion]:
        """Every version there is, by name and then by number."""
        with self._lock:
            return sorted(self._list_all(), key=lambda entry: (entry.name, entry.version or 0))

    def names(self) -> set[str]:
        """The models there are."""
        with self._lock:
            return set(self._models)

    def list_versions(self, name: str) -> list[ModelVersion]:
        """The versions of one model, ascending. Raises NotFoundError when there is none."""
        if not name:
            raise InvalidArgumentError("model name: expected the name of a model, given nothing")
        with self._lock:
            versions = list(self._models.get(name, {}).values())
        if not versions:
            raise NotFoundError(f"Request for unknown model: {name!r} is not found")
        return sorted(versions, key=lambda entry: entry.version or 0)

    def labels(self, name: str) -> dict[str, int]:
        """The labels of a model's versions, and what each stands for."""
        with self._lock:
            return dict(self._labels.get(name, {}))

    def find(self, name: str, version: str = "") -> ModelVersion:
        """One version, by number or label, or without either the highest that is READY, or else the highest.

        Raises
        ------
        InvalidArgumentError
            The name is empty or the version is neither a number nor what a label may be.
        NotFoundError
            There is no such model or version.
        """
        with self._lock:
            versions = self.list_versions(name)
            if version:
                number = self._resolve(name, version)
                versions = [entry for entry in versions if entry.version == number]
                if not versions:
                    raise NotFoundError(f"Request for unknown model: {name!r} version {version} is not found")
        return max(versions, key=lambda entry: (entry.state is State.READY, entry.version or 0))

    def _resolve(self, name: str, version: str) -> int:
        """The number that a version in its wire form stands for."""
        if not LABEL.fullmatch(version):
            return parse_version(version)
        labels = self._labels.get(name, {})
        if version not in labels:
            raise NotFoundError(f"{VERSION_REFUSED} {version!r}: model {name!r} has no such label")
        return labels[version]

    def find_ready(self, name: str, version: str = "") -> ModelVersion:
        """As find; UnavailableError with the reason for one that is not READY."""
        entry = self.find(name, version)
        if entry.state is not State.READY:
            subject = f"model {name!r}" + (f" version {entry.version}" if entry.version is not None else "")
            raise UnavailableError(f"{subject} is unavailable: {entry.reason}")
        return entry

    def find_described(self, name: str, version: str = "") -> ModelVersion:
        """As find_ready, with a configuration; that of a dormant model may be read now, or the model loaded for it."""
        entry = self.find_ready(name, version)
        if entry.config is None and self._describe is not None:
            entry = self._describe(entry)
        return entry


def parse_version(text: str) -> int:
    """The number of a version in its wire form; InvalidArgumentError for what is not one."""
    if not WIRE_VERSION.fullmatch(text) or int(text) == 0:
        raise InvalidArgumentError(f"{VERSION_REFUSED} {text!r}: expected a positive number or a label")
    return int(text)


def log_state(entry: ModelVersion) -> None:
    """Log what became of a version; a failure, also one that left an older load serving, as a warning."""
    is_failure = entry.reason not in ("", UNLOADED, DORMANT) and entry.state in (State.READY, State.UNAVAILABLE)
    level = logging.WARNING if is_failure else logging.INFO
    fields = {"model": entry.name, "version": entry.version, "state": entry.state.value}
    logger.log(level, "model state", extra=fields | ({"reason": entry.reason} if entry.reason else {}))
