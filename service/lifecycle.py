"""Brings models into service and out of it, beside serving: each load is verified, warmed up and then put in place."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.allocator import release_memory
from service.config_text import ModelConfigError
from service.ensemble_config import list_step_models
from service.ensemble_states import EnsembleStates
from service.model_change import ModelChange, mark_failed
from service.model_config import read_config, read_override
from service.model_folders import ModelFolder, ModelFolderError, find_config, find_model, list_models
from service.model_override import ModelOverride, lay_out_files
from service.model_plan import Makings, ModelPlan, plan_model
from service.repository import UNLOADED, ModelVersion, Repository, State
from service.status import InvalidArgumentError, NotFoundError, UnavailableError
from service.version_loader import VersionLoader, explain_failure

if TYPE_CHECKING:
    from kernels.engine import Engine
    from kernels.version_table import LoadedVersion

LOADING = "the model is loading"
ENSEMBLE_FIELD = b"ensemble_scheduling"

logger = logging.getLogger(__name__)


class LoadError(InvalidArgumentError):
    """A model could not be loaded as it is now; what served before goes on serving."""


class Lifecycle:
    """Loads and unloads models; safe to use from any thread, where operations on one model take turns.

    Parameters
    ----------
    root
        The folder that holds one folder a model.
    engine
        What runs the versions.
    repository
        What is told of every change.
    default_max_batch_size
        For models that can be batched and whose configuration does not say.
    """

    def __init__(self, root: Path, engine: "Engine", repository: Repository, *, default_max_batch_size: int = 64):
        self._root = root
        self._engine = engine
        self._repository = repository
        self._loader = VersionLoader(engine, default_max_batch_size, self._check_going)
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        # So that what the engine does and what the repository says of it change in the same order.
        self._changing = threading.Lock()
        self._ensembles = EnsembleStates(engine)
        # Of each model that serves, what its versions are made of. Written by whoever has the model's turn.
        self._served: dict[str, dict[int, Makings]] = {}
        self._to_load: list[str] = []
        self._is_stopped = False
        self._operations = 0

    def find_models(self, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Look what there is, at the start: until load_found has come to it, a model's requests hear that it loads.

        Parameters
        ----------
        wanted
            Whether a model of that name is to be loaded; the others are known, and unloaded.

        Raises
        ------
        ModelFolderError
            The repository itself cannot be read.
        """
        folders = list_models(self._root)
        self._to_load = [folder.name for folder in folders if wanted(folder.name) and not folder.problem]
        entries = []
        for folder in folders:
            if folder.problem or not wanted(folder.name):
                entries += _describe_folder(folder, State.UNAVAILABLE, folder.problem or UNLOADED)
            else:
                entries += _describe_folder(folder, State.LOADING, LOADING)
        self._put_in_place(entries)

    def load_found(self) -> None:
        """Load every model that find_models wanted; one that cannot be loaded is UNAVAILABLE and stops no other.

        Ensembles come last: their steps have then been tried.
        """
        ensembles = {name for name in self._to_load if self._list_steps(name)}
        for name in sorted(self._to_load, key=ensembles.__contains__):
            if self._is_stopped:
                return
            with contextlib.suppress(LoadError, NotFoundError, UnavailableError):
                if name in ensembles:
                    self.load(name)
                else:
                    self._load_one(name)

    def look_around(self) -> None:
        """Learn of folders that came or went since, without loading anything; ModelFolderError as of find_models."""
        folders = {folder.name: folder for folder in list_models(self._root)}
        known = self._repository.names()
        for name in folders.keys() ^ known:
            turn = self._find_turn(name)
            # A model that somebody loads or unloads just now is in good hands.
            if not turn.acquire(blocking=False):
                continue
            try:
                if name in folders and name not in self._repository.names():
                    self._put_in_place(_describe_folder(folders[name], State.UNAVAILABLE, UNLOADED))
                elif name in known and name not in self._served:
                    self._put_in_place(_move(self._repository.list_versions(name), State.REMOVED))
            finally:
                turn.release()

    def stop_loading(self) -> None:
        """Have every load return after the session or the warm-up run that it makes now, and refuse further ones."""
        self._is_stopped = True

    def load(self, name: str, override: ModelOverride | None = None) -> None:
        """Bring a model to what its folder asks for now; versions that serve and have not changed stay as they are.

        Returns when all of it serves and what it replaced has finished. What an ensemble consists of is loaded before
        it, unless somebody has loaded it already or has tried to.

        Parameters
        ----------
        override
            What to load instead of what the repository holds, until the next load.

        Raises
        ------
        NotFoundError
            There is no such model.
        LoadError
            A version cannot serve; the text says which and why. All that served before goes on serving.
        UnavailableError
            The server is stopping.
        """
        self._load_steps(name, (name,), override)
        self._load_one(name, override)

    def _load_one(self, name: str, override: ModelOverride | None = None) -> None:
        with self._take_turn(name), self._find_folder(name, override) as folder:
            try:
                plan = plan_model(folder, override)
            except Exception as error:
                reason = explain_failure(error, folder)
                self._keep_all(folder, reason)
                raise LoadError(f"failed to load {name!r}: {reason}") from None
            self._bring_up(plan)

    def _load_steps(self, name: str, outer: tuple[str, ...], override: ModelOverride | None = None) -> None:
        """Load those models of an ensemble's steps that nobody has loaded yet, the innermost first.

        Without the ensemble's turn, so that two that contain each other do not wait for each other.
        """
        for step in self._list_steps(name, override):
            is_new = all(entry.reason in (UNLOADED, LOADING) for entry in self._list_known(step))
            if is_new and step not in outer:
                self._load_steps(step, (*outer, step))
                with contextlib.suppress(LoadError, NotFoundError):
                    self._load_one(step)

    def _list_steps(self, name: str, override: ModelOverride | None = None) -> list[str]:
        """The models of an ensemble's steps; none of a model, and of what cannot be read."""
        try:
            if override:
                return list_step_models(read_override(override.config, name).proto)
            folder = find_model(self._root, name)
            path = find_config(folder) if folder else None
            # Of most models the configuration need not be parsed for that.
            if path is None or ENSEMBLE_FIELD not in path.read_bytes():
                return []
            return list_step_models(read_config(path, name).proto)
        except (ModelFolderError, ModelConfigError, OSError):
            # Whoever loads it comes across the same, and says so.
            return []

    def unload(self, name: str, *, with_steps: bool = False) -> None:
        """Take a model out of service: requests that come from now on are refused, those admitted are finished.

        Parameters
        ----------
        with_steps
            Whether an ensemble takes the models of its steps along, but for those that another ensemble has too.

        Raises
        ------
        NotFoundError
            There is no such model.
        UnavailableError
            The server is stopping.
        """
        steps = self._ensembles.list_steps(name) if with_steps else []
        with self._take_turn(name):
            entries = self._repository.list_versions(name)
            was_serving = bool(self._served.pop(name, None))
            is_there = self._is_there(name)
            reason = UNLOADED if is_there else None
            changes = {(name, entry.version): reason for entry in entries if entry.version is not None}
            replaced = self._exchange(changes, _move(entries, State.UNLOADING) if was_serving else [], {name: {}})
            if was_serving:
                self._engine.retire(replaced)
                release_memory()
            self._repository.publish(_move(entries, State.UNAVAILABLE if is_there else State.REMOVED))
        for step in steps:
            if not self._ensembles.contain(step):
                with contextlib.suppress(NotFoundError):
                    self.unload(step, with_steps=True)

    @property
    def is_busy(self) -> bool:
        """Whether a load or an unload is under way; after stop_loading, false once means for good."""
        return self._operations > 0

    @contextlib.contextmanager
    def _take_turn(self, name: str) -> Iterator[None]:
        """One operation on a model, once those before it are done; UnavailableError when the server is stopping."""
        with self._lock:
            self._operations += 1
        try:
            with self._find_turn(name):
                self._check_going()
                yield
        finally:
            with self._lock:
                self._operations -= 1

    def _find_turn(self, name: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())

    @contextlib.contextmanager
    def _find_folder(self, name: str, override: ModelOverride | None) -> Iterator[ModelFolder]:
        """The folder to load a model from; one of overriding files is there only meanwhile."""
        if override and override.files:
            with lay_out_files(name, override.files) as folder:
                yield folder
            return
        try:
            folder = find_model(self._root, name)
        except ModelFolderError as error:
            raise LoadError(f"failed to load {name!r}: {error}") from None
        if folder is None:
            raise NotFoundError(f"failed to load {name!r}: the repository has no such model")
        yield folder

    def _is_there(self, name: str) -> bool:
        """Whether the repository has such a model; of one that cannot be read, yes."""
        try:
            return find_model(self._root, name) is not None
        except ModelFolderError:
            return True

    def _check_going(self) -> None:
        if self._is_stopped:
            raise UnavailableError("the server is stopping")

    def _keep_all(self, folder: ModelFolder, reason: str) -> None:
        """Note why nothing of a model could be loaded; what serves of it goes on."""
        known = {entry.version: entry for entry in self._list_known(folder.name)}
        if not known:
            known = {entry.version: entry for entry in _describe_folder(folder, State.UNAVAILABLE, reason)}
        for entry in _describe_folder(folder, State.UNAVAILABLE, reason) if folder.versions else ():
            known.setdefault(entry.version, entry)
        self._put_in_place([mark_failed(entry, reason) for entry in known.values()])

    def _list_known(self, name: str) -> list[ModelVersion]:
        """The versions of a model; ensembles that wait for their steps as if they were READY, since they are loaded."""
        try:
            return [self._ensembles.find_loaded(entry) for entry in self._repository.list_versions(name)]
        except NotFoundError:
            return []

    def _bring_up(self, plan: ModelPlan) -> None:
        """Load what has changed of a model, and then put all of it in place at one moment."""
        name, fields = plan.folder.name, plan.written.without_effect
        if fields:
            logger.warning("fields of the configuration have no effect", extra={"model": name, "fields": fields})
        known = {entry.version: entry for entry in self._list_known(name)}
        change = ModelChange(plan, known, self._served.get(name, {}))
        self._put_in_place([ModelVersion(name, version, State.LOADING, LOADING) for version in change.newcomers])
        try:
            change.prepare(self._loader, self._check_going)
        except BaseException:
            self._engine.retire(change.handles.values())
            raise
        self._served[name] = change.served
        labels = {name: change.labels} if change.takes_labels else None
        self._put_in_place(change.list_entries(), labels, change.handles)
        if change.replaces:
            release_memory()
        failures = change.failures | self._ensembles.list_faults(name)
        if failures:
            reasons = "; ".join(f"version {version}: {reason}" for version, reason in failures.items())
            raise LoadError(f"failed to load {name!r}: {reasons}")

    def _put_in_place(
        self,
        entries: Sequence[ModelVersion],
        labels: Mapping[str, Mapping[str, int]] | None = None,
        handles: "Mapping[int, LoadedVersion] | None" = None,
    ) -> None:
        """Have the engine do as the entries say, tell the repository, and drain what was replaced.

        Parameters
        ----------
        handles
            What the engine holds of versions that are READY from now on; others that are READY are so already.
        """
        handles, changes = handles or {}, {}
        for entry in entries:
            if entry.state is not State.READY:
                changes[entry.name, entry.version] = entry.reason if entry.state is not State.REMOVED else None
            elif entry.version in handles:
                changes[entry.name, entry.version] = handles[entry.version]
        changes = {key: change for key, change in changes.items() if key[1] is not None}
        self._engine.retire(self._exchange(changes, entries, labels))

    def _exchange(
        self,
        changes: "Mapping[tuple[str, int], LoadedVersion | str | None]",
        entries: Sequence[ModelVersion],
        labels: Mapping[str, Mapping[str, int]] | None,
    ) -> "list[LoadedVersion]":
        """Change what the engine serves, and then what the repository says, of ensembles too that this bears on."""
        with self._changing:
            replaced = self._engine.exchange(changes, labels) if changes or labels else []
            self._repository.publish(self._ensembles.follow(entries), labels)
        return replaced


def _describe_folder(folder: ModelFolder, state: State, reason: str) -> list[ModelVersion]:
    """One entry for each version of a folder, or one for a folder that has none."""
    return [ModelVersion(folder.name, version, state, reason) for version in folder.versions or (None,)]


def _move(entries: Sequence[ModelVersion], state: State) -> list[ModelVersion]:
    """The same versions, unloaded or on the way there."""
    return [ModelVersion(entry.name, entry.version, state, UNLOADED) for entry in entries]
