"""Brings models into service and out of it, beside serving: each load is verified, warmed up and then put in place."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.parking import DormantModel
from service.allocator import release_memory
from service.config_text import ModelConfigError
from service.dormant_models import describe_dormant, put_to_rest
from service.model_change import ModelChange, mark_failed
from service.model_folders import ModelFolder, ModelFolderError, find_model, list_models
from service.model_override import ModelOverride, lay_out_files
from service.model_plan import Makings, ModelPlan, plan_model
from service.repository import UNLOADED, ModelVersion, Repository, State
from service.status import InvalidArgumentError, NotFoundError, UnavailableError
from service.version_loader import UNFORESEEN_FAILURE, VersionLoader, explain_failure

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
    is_lazy
        Whether a model of that name is loaded when the first request for it comes, by service.lazy_loading.
    """

    def __init__(
        self,
        root: Path,
        engine: "Engine",
        repository: Repository,
        *,
        default_max_batch_size: int = 64,
        is_lazy: Callable[[str], bool] = lambda name: False,
    ):
        self._root = root
        self._is_lazy = is_lazy
        self._engine = engine
        self._repository = repository
        self._loader = VersionLoader(engine, default_max_batch_size, self._check_going)
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
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
        entries: list[ModelVersion] = []
        labels: dict[str, Mapping[str, int]] = {}
        self._to_load = []
        for folder in list_models(self._root):
            if folder.problem or not wanted(folder.name):
                entries += _describe_folder(folder, State.UNAVAILABLE, folder.problem or UNLOADED)
            elif self._is_lazy(folder.name):
                described, labels[folder.name] = _look_into(folder)
                entries += described
            else:
                entries += _describe_folder(folder, State.LOADING, LOADING)
                self._to_load.append(folder.name)
        self._put_in_place(entries, labels)

    def load_found(self) -> None:
        """Load every model that find_models wanted; one that cannot be loaded is UNAVAILABLE and stops no other."""
        for name in self._to_load:
            if self._is_stopped:
                return
            with contextlib.suppress(LoadError, NotFoundError, UnavailableError):
                self.load(name)

    def look_around(self) -> None:
        """Learn of folders that came or went since, without loading anything; ModelFolderError as of find_models."""
        folders = {folder.name: folder for folder in list_models(self._root)}
        known = self._repository.names()
        for name in folders.keys() ^ known:
            with self._try_turn(name) as is_taken:
                if not is_taken:
                    # A model that somebody loads or unloads just now is in good hands.
                    continue
                if name in folders and name not in self._repository.names():
                    self._put_in_place(_describe_folder(folders[name], State.UNAVAILABLE, UNLOADED))
                elif name in known and name not in self._served:
                    self._put_in_place(_move(self._repository.list_versions(name), State.REMOVED))

    def stop_loading(self) -> None:
        """Have every load return after the session or the warm-up run that it makes now, and refuse further ones."""
        self._is_stopped = True

    def load(self, name: str, override: ModelOverride | None = None) -> None:
        """Bring a model to what its folder asks for now; versions that serve and have not changed stay as they are.

        Returns when all of it serves and what it replaced has finished.

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
        with self._take_turn(name), self._find_folder(name, override) as folder:
            self._bring_up(self._plan(folder, override))

    def load_dormant(self, name: str) -> None:
        """As `load`, for requests that wait: whatever keeps a model from being loaded, they hear of it. Raises as that.

        Within one turn: whoever comes next may make it dormant again.
        """
        with self._take_turn(name):
            try:
                with self._find_folder(name) as folder:
                    self._bring_up(self._plan(folder))
            except UnavailableError:
                raise
            except NotFoundError:
                self._put_in_place(_move(self._list_known(name), State.REMOVED))
                raise
            except LoadError as error:
                self._refuse_dormant(name, str(error))
                raise
            except Exception as error:
                logger.error("model failed to load", exc_info=error, extra={"model": name})
                self._refuse_dormant(name, UNFORESEEN_FAILURE)
                raise LoadError(f"failed to load {name!r}: {UNFORESEEN_FAILURE}") from None

    def _refuse_dormant(self, name: str, reason: str) -> None:
        """Have requests for what is still dormant of a model refused; most failures have seen to that themselves."""
        self._put_in_place([mark_failed(entry, reason) for entry in self._list_known(name) if entry.is_dormant])

    def follow(self, name: str) -> None:
        """Take up what has changed of a model: load it, or leave that to a request for it. Raises as `load`."""
        with self._take_turn(name), self._find_folder(name) as folder:
            plan = self._plan(folder)
            if self._is_lazy(name) and not self._served.get(name):
                self._put_in_place(describe_dormant(plan, self._list_known(name)), {name: plan.written.labels})
            else:
                self._bring_up(plan)

    def rest(self, name: str) -> bool:
        """Take a model out of memory until the next request for it; requests that it has are finished.

        False when it is not in memory, or somebody loads or unloads it just now.
        """
        with self._try_turn(name) as is_taken:
            if not is_taken or not self._served.pop(name, None):
                return False
            self._put_in_place(put_to_rest(self._repository.list_versions(name)))
            return True

    def measure_files(self, name: str) -> int:
        """The bytes of the ONNX files of a model's versions, 0 where they cannot be found."""
        try:
            folder = find_model(self._root, name)
            plan = plan_model(folder) if folder else None
            return sum(plan.find_model_file(version).stat().st_size for version in plan.versions) if plan else 0
        except (ModelFolderError, ModelConfigError, OSError):
            return 0

    def is_refused(self, name: str) -> bool:
        """Whether there is such a model and requests for it are refused, whatever the version."""
        known = self._list_known(name)
        return bool(known) and all(entry.state is not State.READY for entry in known)

    def unload(self, name: str) -> None:
        """Take a model out of service: requests that come from now on are refused, those admitted are finished.

        Raises
        ------
        NotFoundError
            There is no such model.
        UnavailableError
            The server is stopping.
        """
        with self._take_turn(name):
            entries = self._repository.list_versions(name)
            was_serving = bool(self._served.pop(name, None))
            is_there = self._is_there(name)
            reason = UNLOADED if is_there else None
            changes = {(name, entry.version): reason for entry in entries if entry.version is not None}
            replaced = self._engine.exchange(changes, {name: {}})
            if was_serving:
                self._repository.publish(_move(entries, State.UNLOADING), {name: {}})
                self._loader.retire(replaced)
                release_memory()
            self._repository.publish(_move(entries, State.UNAVAILABLE if is_there else State.REMOVED))
            if not was_serving:
                self._loader.retire(replaced)

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

    @contextlib.contextmanager
    def _try_turn(self, name: str) -> Iterator[bool]:
        """As _take_turn, if nobody else has the turn; False when somebody does."""
        turn = self._find_turn(name)
        with self._lock:
            self._operations += 1
        is_taken = turn.acquire(blocking=False)
        try:
            yield is_taken
        finally:
            if is_taken:
                turn.release()
            with self._lock:
                self._operations -= 1

    def _find_turn(self, name: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())

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
            known = {entry.version: entry for entry in _describe_folder(folder, State.UNAVAILABLE, reason)}
        for entry in _describe_folder(folder, State.UNAVAILABLE, reason) if folder.versions else ():
            known.setdefault(entry.version, entry)
        self._put_in_place([mark_failed(entry, reason) for entry in known.values()])

    def _list_known(self, name: str) -> list[ModelVersion]:
        try:
            return self._repository.list_versions(name)
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
        if change.failures:
            reasons = "; ".join(f"version {version}: {reason}" for version, reason in change.failures.items())
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
        replaced = self._engine.exchange(changes, labels) if changes or labels else []
        self._repository.publish(entries, labels)
        self._loader.retire(replaced)


def _look_into(folder: ModelFolder) -> tuple[list[ModelVersion], Mapping[str, int]]:
    """The versions of a model that is not to be loaded yet, and their labels; UNAVAILABLE where it never could be."""
    try:
        plan = plan_model(folder)
    except Exception as error:
        return _describe_folder(folder, State.UNAVAILABLE, explain_failure(error, folder)), {}
    return describe_dormant(plan, ()), plan.written.labels


def _describe_folder(folder: ModelFolder, state: State, reason: str) -> list[ModelVersion]:
    """One entry for each version of a folder, or one for a folder that has none."""
    return [ModelVersion(folder.name, version, state, reason) for version in folder.versions or (None,)]


def _move(entries: Sequence[ModelVersion], state: State) -> list[ModelVersion]:
    """The same versions, unloaded or on the way there."""
    return [ModelVersion(entry.name, entry.version, state, UNLOADED) for entry in entries]
