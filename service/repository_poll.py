"""Looks at the model repository every so often and has the lifecycle follow what was added, changed or removed."""

import contextlib
import logging
import os
import threading
from pathlib import Path

from service.lifecycle import Lifecycle, LoadError
from service.model_folders import STATE_FOLDER, WARMUP_FOLDER, ModelFolder, ModelFolderError, list_models
from service.status import NotFoundError, UnavailableError

# Of a model: every file that may bear on it, by its path with what tells one content from another.
Signature = tuple[object, ...]

logger = logging.getLogger(__name__)


class RepositoryPoller:
    """Follows a repository from a thread of its own.

    A change is taken up when two looks in a row have seen the same of it: while files are being copied, they differ.
    What was taken up and could not be loaded is tried again when it changes.
    """

    def __init__(self, root: Path, lifecycle: Lifecycle, interval_s: float):
        self._root = root
        self._lifecycle = lifecycle
        self._interval_s = interval_s
        self._seen: dict[str, Signature] = {}
        self._taken_up: dict[str, Signature] = {}
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="repository-poll", daemon=True)

    def remember(self) -> None:
        """Take what is there now for loaded, or about to be; must come before it is looked for models."""
        self._seen = self._sign_all()
        self._taken_up = dict(self._seen)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a load that is under way is not waited for."""
        self._is_stopped.set()

    def _run(self) -> None:
        while not self._is_stopped.wait(self._interval_s):
            try:
                self.look()
            except ModelFolderError as error:
                # A file system that is away for a while must not take the models with it.
                logger.warning("model repository not looked at", extra={"reason": str(error)})
            except Exception as error:
                logger.error("model repository not followed", exc_info=error)

    def look(self) -> None:
        """Look once, and follow what has settled; ModelFolderError when the repository cannot be read."""
        before, self._seen = self._seen, self._sign_all()
        for name in sorted(self._seen.keys() | self._taken_up.keys()):
            now = self._seen.get(name)
            if now != self._taken_up.get(name) and now == before.get(name) and not self._is_stopped.is_set():
                self._follow(name, now)

    def _follow(self, name: str, signature: Signature | None) -> None:
        if signature is None:
            self._taken_up.pop(name)
        else:
            self._taken_up[name] = signature
        # Who failed is UNAVAILABLE or says that it serves the older load, in the index and in the log.
        with contextlib.suppress(LoadError, NotFoundError, UnavailableError):
            if signature is None:
                self._lifecycle.unload(name)
            else:
                self._lifecycle.follow(name)

    def _sign_all(self) -> dict[str, Signature]:
        return {folder.name: sign_model(folder) for folder in list_models(self._root)}


def sign_model(folder: ModelFolder) -> Signature:
    """What a model's folder holds that may bear on it: its files, those of versions, warm-up data and first states."""
    if folder.problem:
        return (folder.problem,)
    deep = [folder.path / WARMUP_FOLDER, folder.path / STATE_FOLDER, *folder.versions.values()]
    return (_sign_folder(folder.path, is_deep=False), *(_sign_folder(path, is_deep=True) for path in deep))


def _sign_folder(path: Path, *, is_deep: bool) -> Signature:
    """Path, and what tells one content of each file from another; of folders inside, if it is to be deep, the same."""
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        signed = [_sign_file(entry) for entry in found if not entry.is_dir()]
        if is_deep:
            inner = [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]
            signed += [_sign_folder(folder, is_deep=True) for folder in inner]
    except OSError as error:
        return (str(path), error.errno)
    return (str(path), *signed)


def _sign_file(entry: os.DirEntry) -> Signature:
    """A file that was renamed into place of another has another inode, whatever its time says."""
    status = entry.stat()
    return entry.name, status.st_ino, status.st_size, status.st_mtime_ns
