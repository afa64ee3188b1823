"""What an ensemble consists of, as its configuration has it, and how that is loaded before it."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from service.config_text import ModelConfigError
from service.ensemble_config import list_step_models
from service.model_config import read_config, read_override
from service.model_folders import ModelFolderError, find_config, find_model
from service.model_override import ModelOverride

ENSEMBLE_FIELD = b"ensemble_scheduling"


class EnsembleSteps:
    """Loads the models of ensembles' steps, and knows which of them are needed meanwhile; safe to use from any thread.

    Parameters
    ----------
    has_to_load
        Whether an ensemble may have to load a model of that name.
    load
        Loads it if that is so still, or comes to nothing.
    """

    def __init__(self, root: Path, has_to_load: Callable[[str], bool], load: Callable[[str], None]):
        self._root = root
        self._has_to_load = has_to_load
        self._load = load
        self._lock = threading.Lock()
        self._needed: Counter[str] = Counter()

    @contextlib.contextmanager
    def load_for(self, name: str, override: ModelOverride | None = None) -> Iterator[None]:
        """Load what an ensemble consists of, if it is one; all of it is needed until the block ends.

        Without the ensemble's turn, so that two that contain each other do not wait for each other.
        """
        steps = self.find(name, override)
        with self._lock:
            self._needed.update(steps)
        try:
            for step in steps:
                self._load(step)
            yield
        finally:
            with self._lock:
                self._needed.subtract(steps)

    def is_needed(self, name: str) -> bool:
        """Whether a model is a step of an ensemble that is being loaded."""
        with self._lock:
            return self._needed[name] > 0

    def find(self, name: str, override: ModelOverride | None = None) -> list[str]:
        """The models that may have to be loaded with an ensemble, the innermost first."""
        return list(dict.fromkeys(self._find_within(name, (name,), override)))

    def find_circle(self, name: str) -> str:
        """How an ensemble contains itself, by its steps or theirs; empty where it does not."""
        circle = self._find_circle((name,))
        return "ensembles contain each other: " + " → ".join(map(repr, circle)) if circle else ""

    def _find_circle(self, path: tuple[str, ...]) -> tuple[str, ...]:
        for step in find_step_models(self._root, path[-1]):
            if step == path[0]:
                return (*path, step)
            if step not in path and (circle := self._find_circle((*path, step))):
                return circle
        return ()

    def _find_within(self, name: str, outer: tuple[str, ...], override: ModelOverride | None = None) -> Iterator[str]:
        for step in find_step_models(self._root, name, override):
            if step not in outer and self._has_to_load(step):
                yield from self._find_within(step, (*outer, step))
                yield step


def find_step_models(root: Path, name: str, override: ModelOverride | None = None) -> list[str]:
    """The models of an ensemble's steps; none of a model, and of what cannot be read."""
    try:
        if override:
            return list_step_models(read_override(override.config, name).proto)
        folder = find_model(root, name)
        path = find_config(folder) if folder else None
        # Of most models the configuration need not be parsed for that.
        if path is None or ENSEMBLE_FIELD not in path.read_bytes():
            return []
        return list_step_models(read_config(path, name).proto)
    except (ModelFolderError, ModelConfigError, OSError):
        # Whoever loads it comes across the same, and says so.
        return []
