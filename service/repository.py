"""The models that this server has: loads every version of the repository and keeps the state of each."""

import enum
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.session import SessionError
from service.model_config import ModelConfigError, WrittenConfig, read_config
from service.model_folders import ModelFolder, ModelFolderError, find_config, find_model_file, list_models
from service.model_sessions import list_usable_gpus, open_sessions
from service.onnx_file import OnnxFileError, check_self_contained
from service.serving_config import ServingConfig, complete_config
from service.status import InvalidArgumentError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from kernels.engine import Engine

WIRE_VERSION = re.compile(r"[0-9]{1,18}")

# Errors whose text tells an operator what is wrong with a model.
LOAD_ERRORS = (ModelFolderError, ModelConfigError, OnnxFileError, SessionError)

logger = logging.getLogger(__name__)


class State(enum.Enum):
    """Whether a model version serves; the value is the word on the wire."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model, as it is now.

    Attributes
    ----------
    version
        None for a model that has no version to load.
    reason
        Why it is not READY; empty when it is.
    config
        How it serves; None unless it is READY.
    """

    name: str
    version: int | None
    state: State
    reason: str = ""
    config: ServingConfig | None = None


class Repository:
    """The versions of all models by name and number; safe to use from any thread.

    Parameters
    ----------
    root
        The folder that holds one folder a model.
    engine
        What runs the versions; it is told of each that loads and of each that cannot serve.
    default_max_batch_size
        For models that can be batched and whose configuration does not say.
    """

    def __init__(self, root: Path, engine: "Engine", *, default_max_batch_size: int = 64):
        self._root = root
        self._engine = engine
        self._default_max_batch_size = default_max_batch_size
        self._gpus = list_usable_gpus()
        # Held while listeners are called, so that each sees the changes in their order; they may read the repository.
        self._lock = threading.RLock()
        self._versions: dict[tuple[str, int | None], ModelVersion] = {}
        self._models: list[ModelFolder] = []
        self._listeners: list[Callable[[ModelVersion], None]] = []
        self._is_stopped = False

    def subscribe(self, listener: Callable[[ModelVersion], None]) -> None:
        """Call `listener` with each version that there is and, in the thread that loads, whenever its state changes."""
        with self._lock:
            for version in self._versions.values():
                listener(version)
            self._listeners.append(listener)

    def find_models(self) -> None:
        """Look what there is: until load has come to a version, its requests hear that it is loading.

        Raises
        ------
        ModelFolderError
            The repository itself cannot be read.
        """
        self._models = list_models(self._root)
        for model in self._models:
            for version in model.versions:
                self._withhold(ModelVersion(model.name, version, State.LOADING, "the model is loading"))

    def load(self) -> None:
        """Load every version that was found; one that cannot be loaded is UNAVAILABLE and stops no other."""
        for model in self._models:
            self._load_model(model)

    def stop_loading(self) -> None:
        """Have load, in another thread, return after the version that it loads now."""
        self._is_stopped = True

    def _load_model(self, model: ModelFolder) -> None:
        if model.problem:
            self._withhold(ModelVersion(model.name, None, State.UNAVAILABLE, model.problem))
            return
        try:
            written = read_config(find_config(model), model.name)
        except Exception as error:
            for version in model.versions:
                self._fail(model, version, error)
            return
        for version in model.versions:
            if not self._is_stopped:
                self._load_version(model, version, written)

    def _load_version(self, model: ModelFolder, version: int, written: WrittenConfig) -> None:
        try:
            config = self._start_version(model, version, written)
        except Exception as error:
            self._fail(model, version, error)
        else:
            self._publish(ModelVersion(model.name, version, State.READY, config=config))

    def _fail(self, model: ModelFolder, version: int, error: Exception) -> None:
        """Make a version UNAVAILABLE; the detail of an error that nobody foresaw goes to the log alone."""
        if isinstance(error, LOAD_ERRORS):
            # ONNX Runtime names the file by its full path, which is nobody's business outside.
            reason = str(error).replace(f"{model.path.parent}/", "").strip()
        else:
            logger.error("model failed to load", exc_info=error, extra={"model": model.name, "version": version})
            reason = "loading failed for a reason that the server's log has"
        self._withhold(ModelVersion(model.name, version, State.UNAVAILABLE, reason))

    def _start_version(self, model: ModelFolder, version: int, written: WrittenConfig) -> ServingConfig:
        path = find_model_file(model, version)
        check_self_contained(path)
        opened = open_sessions(path, written, self._gpus)
        inputs, outputs = opened.sessions[0].inputs, opened.sessions[0].outputs
        config = complete_config(model.name, written, inputs, outputs, self._default_max_batch_size, opened.gpus)
        for session in opened.sessions:
            session.narrow_inputs([spec.shape for spec in config.inputs])
        self._engine.load(
            model.name,
            version,
            opened.sessions,
            max_batch_size=config.max_batch_size,
            queue_delay_us=config.queue_delay_us,
            instance_count=opened.instance_count,
            buffer_sets=opened.buffer_sets,
        )
        return config

    def _withhold(self, entry: ModelVersion) -> None:
        """Let requests for a version hear why it cannot serve."""
        if entry.version is not None:
            self._engine.set_unavailable(entry.name, entry.version, entry.reason)
        self._publish(entry)

    def _publish(self, entry: ModelVersion) -> None:
        level = logging.WARNING if entry.state is State.UNAVAILABLE else logging.INFO
        fields = {"model": entry.name, "version": entry.version, "state": entry.state.value}
        logger.log(level, "model state", extra=fields | ({"reason": entry.reason} if entry.reason else {}))
        with self._lock:
            self._versions[entry.name, entry.version] = entry
            for listener in self._listeners:
                listener(entry)

    def index(self) -> list[ModelVersion]:
        """Every version there is, by name and then by number."""
        with self._lock:
            return sorted(self._versions.values(), key=lambda entry: (entry.name, entry.version or 0))

    def list_versions(self, name: str) -> list[ModelVersion]:
        """The versions of one model, ascending. Raises NotFoundError when there is none."""
        if not name:
            raise InvalidArgumentError("model name: expected the name of a model, given nothing")
        versions = [entry for entry in self.index() if entry.name == name]
        if not versions:
            raise NotFoundError(f"unknown model {name!r}")
        return versions

    def find(self, name: str, version: str = "") -> ModelVersion:
        """One version, or without a version the highest that is READY, or else the highest.

        Raises
        ------
        InvalidArgumentError
            The name is empty or the version is not a number.
        NotFoundError
            There is no such model or version.
        """
        versions = self.list_versions(name)
        if version:
            number = parse_version(version)
            versions = [entry for entry in versions if entry.version == number]
            if not versions:
                raise NotFoundError(f"model {name!r} has no version {version}")
        return max(versions, key=lambda entry: (entry.state is State.READY, entry.version or 0))

    def find_ready(self, name: str, version: str = "") -> ModelVersion:
        """As find; UnavailableError with the reason for one that is not READY."""
        entry = self.find(name, version)
        if entry.state is not State.READY:
            subject = f"model {name!r}" + (f" version {entry.version}" if entry.version is not None else "")
            raise UnavailableError(f"{subject} is unavailable: {entry.reason}")
        return entry


def parse_version(text: str) -> int:
    """The number of a version in its wire form; InvalidArgumentError for what is not one."""
    if not WIRE_VERSION.fullmatch(text) or int(text) == 0:
        raise InvalidArgumentError(f"model version: expected a positive whole number, given {text!r}")
    return int(text)
