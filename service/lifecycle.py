"""Brings models into service and out of it, beside serving: each load is verified, warmed up and then put in place."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.parking import DormantModel
from service.allocator import release_memory
from service.ensemble_states import EnsembleStates
from service.ensemble_steps import EnsembleSteps, find_step_models
from service.model_change import ModelChange, mark_failed
from service.model_folders import ModelFolder, ModelFolderError, find_model, list_models
from service.model_override import ModelOverride, lay_out_files
from service.model_plan import Makings, ModelPlan, plan_model
from service.model_turns import ModelTurns
from service.repository import UNLOADED, ModelVersion, Repository, State
from service.status import InvalidArgumentError, NotFoundError, UnavailableError
from service.version_entries import describe_folder, move
from service.version_loader import VersionLoader, explain_failure

if TYPE_CHECKING:
    from kernels.engine import Engine
    from kernels.version_table import LoadedVersion

LOADING = "the model is loading"

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
        self._turns = ModelTurns()
        # So that what the engine does and what the repository says of it change in the same order.
        self._changing = threading.Lock()
        self._ensembles = EnsembleStates(engine)
        self._steps = EnsembleSteps(root, self._has_to_load, self._load_step)
        # Of each model that serves, what its versions are made of. Written by whoever has the model's turn.
        self._served: dict[str, dict[int, Makings]] = {}
        self._to_load: list[str] = []
        self._is_stopped = False

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
        entries: list[ModelVersion] = []
        labels: dict[str, Mapping[str, int]] = {}
        self._to_load = []
        for folder in list_models(self._root):
            if folder.problem or not wanted(folder.name):
                entries += describe_folder(folder, State.UNAVAILABLE, folder.problem or UNLOADED)
            else:
                described, labels[folder.name] = self._look_into(folder)
                entries += described
        self._put_in_place(entries, labels)

    def _look_into(self, folder: ModelFolder) -> tuple[list[ModelVersion], Mapping[str, int]]:
        """The versions of a model that is wanted, and their labels, as they are before load_found."""
        self._to_load.append(folder.name)
        return describe_folder(folder, State.LOADING, LOADING), {}

    def load_found(self) -> None:
        """Load every model that find_models wanted; one that cannot be loaded is UNAVAILABLE and stops no other.

        Ensembles come last: their steps have then been tried.
        """
        ensembles = {name for name in self._to_load if find_step_models(self._root, name)}
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
            with self._turns.try_to_take(name) as is_taken:
                if not is_taken:
                    # A model that somebody loads or unloads just now is in good hands.
                    continue
                if name in folders and name not in self._repository.names():
                    self._put_in_place(describe_folder(folders[name], State.UNAVAILABLE, UNLOADED))
                elif name in known and name not in self._served:
                    self._put_in_place(move(self._repository.list_versions(name), State.REMOVED))

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
        with self._steps.load_for(name, override):
            self._load_one(name, override)

    def _load_one(self, name: str, override: ModelOverride | None = None) -> None:
        with self._take_turn(name), self._find_folder(name, override) as folder:
            self._bring_up(self._plan(folder, override))

    def follow(self, name: str) -> None:
        """Take up what has changed of a model. Raises as `load`."""
        self.load(name)

    def _has_to_load(self, step: str) -> bool:
        """Whether an ensemble loads the model of a step: if nobody has loaded it or tried to."""
        return all(entry.reason in (UNLOADED, LOADING) for entry in self._list_known(step))

    def _load_step(self, step: str) -> None:
        with contextlib.suppress(LoadError, NotFoundError), self._take_turn(step):
            if self._has_to_load(step):
                with self._find_folder(step) as folder:
                    self._bring_up(self._plan(folder))

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
            replaced = self._exchange(changes, move(entries, State.UNLOADING) if was_serving else [], {name: {}})
            if was_serving:
                self._loader.retire(replaced)
                release_memory()
            self._repository.publish(move(entries, State.UNAVAILABLE if is_there else State.REMOVED))
            if not was_serving:
                self._loader.retire(replaced)
        for step in steps:
            if not self._ensembles.contain(step):
                with contextlib.suppress(NotFoundError):
                    self.unload(step, with_steps=True)

    @property
    def is_busy(self) -> bool:
        """Whether a load or an unload is under way; after stop_loading, false once means for good."""
        return self._turns.are_taken

    @contextlib.contextmanager
    def _take_turn(self, name: str) -> Iterator[None]:
        """One operation on a model, once those before it are done; UnavailableError when the server is stopping."""
        with self._turns.take(name):
            self._check_going()
            yield

    @contextlib.contextmanager
    def _find_folder(self, name: str, override: ModelOverride | None = None) -> Iterator[ModelFolder]:
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

    def _plan(self, folder: ModelFolder, override: ModelOverride | None = None) -> ModelPlan:
        """What is to serve of a folder; LoadError when nothing of it can, which is then noted."""
        try:
            return plan_model(folder, override)
        except Exception as error:
            reason = explain_failure(error, folder)
            self._keep_all(folder, reason)
            raise LoadError(f"failed to load {folder.name!r}: {reason}") from None

    def _keep_all(self, folder: ModelFolder, reason: str) -> None:
        """Note why nothing of a model could be loaded; what serves of it goes on."""
        known = {entry.version: entry for entry in self._list_known(folder.name)}
        if not known:
            known = {entry.version: entry for entry in describe_folder(folder, State.UNAVAILABLE, reason)}
        for entry in describe_folder(folder, State.UNAVAILABLE, reason) if folder.versions else ():
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
            self._loader.retire(change.handles.values())
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
        *,
        retire: "Callable[[Sequence[LoadedVersion | DormantModel]], None] | None" = None,
    ) -> None:
        """Have the engine do as the entries say, tell the repository, and drain what was replaced.

        Parameters
        ----------
        handles
            What the engine holds of versions that are READY from now on; others that are READY are so already.
        retire
            What is done with what was replaced, where it is not to be waited for.
        """
        handles, changes = handles or {}, {}
        # One for all versions of a model: they are loaded together.
        dormant = {entry.name: DormantModel(entry.name) for entry in entries if entry.is_dormant}
        for entry in entries:
            if entry.is_dormant:
                changes[entry.name, entry.version] = dormant[entry.name]
            elif entry.state is not State.READY:
                changes[entry.name, entry.version] = entry.reason if entry.state is not State.REMOVED else None
            elif entry.version in handles:
                changes[entry.name, entry.version] = handles[entry.version]
        changes = {key: change for key, change in changes.items() if key[1] is not None}
        (retire or self._loader.retire)(self._exchange(changes, entries, labels))

    def _exchange(
        self,
        changes: "Mapping[tuple[str, int], LoadedVersion | DormantModel | str | None]",
        entries: Sequence[ModelVersion],
        labels: Mapping[str, Mapping[str, int]] | None,
    ) -> "list[LoadedVersion | DormantModel]":
        """Change what the engine serves, and then what the repository says, of ensembles too that this bears on."""
        with self._changing:
            replaced = self._engine.exchange(changes, labels) if changes or labels else []
            self._repository.publish(self._ensembles.follow(entries), labels)
        return replaced
