"""Which ensembles are loaded, and whether each can run: that changes with the models of its steps."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from service.ensemble_config import list_step_models
from service.repository import ModelVersion, State

if TYPE_CHECKING:
    from kernels.engine import Engine


class EnsembleStates:
    """The ensembles of an engine. `follow` is called by one thread at a time, the rest from any."""

    def __init__(self, engine: "Engine"):
        self._engine = engine
        # As they are while they can run. Replaced as a whole, for those who read meanwhile.
        self._loaded: dict[tuple[str, int | None], ModelVersion] = {}

    def follow(self, entries: Iterable[ModelVersion]) -> list[ModelVersion]:
        """After a change of the engine's: the entries, with every ensemble's state as it is now."""
        faults = self._engine.ensembles()
        said = {(entry.name, entry.version): entry for entry in entries}
        loaded = self._loaded | {key: entry for key, entry in said.items() if entry.state is State.READY}
        self._loaded = {key: entry for key, entry in loaded.items() if key in faults}
        for key, entry in self._loaded.items():
            said[key] = entry if faults[key] is None else _wait(entry, faults[key])
        return list(said.values())

    def find_loaded(self, entry: ModelVersion) -> ModelVersion:
        """Of an ensemble that waits for its steps, what it is once it can run; any other entry as it is."""
        return self._loaded.get((entry.name, entry.version), entry)

    def list_faults(self, name: str) -> dict[int, str]:
        """Why versions of an ensemble cannot run, by version."""
        faults = self._engine.ensembles()
        return {version: fault for (ensemble, version), fault in faults.items() if ensemble == name and fault}

    def list_awaited(self) -> list[str]:
        """The models of the steps of ensembles that cannot run now."""
        faults = self._engine.ensembles()
        waiting = [entry for key, entry in self._loaded.items() if faults.get(key)]
        return sorted({step for entry in waiting for step in _list_models(entry)})

    def list_steps(self, name: str) -> list[str]:
        """The models of an ensemble's steps, of all its versions; none of a model."""
        found = {step for entry in self._loaded.values() if entry.name == name for step in _list_models(entry)}
        return sorted(found)

    def contain(self, model: str) -> bool:
        """Whether an ensemble that is loaded has a model among its steps."""
        return any(model in _list_models(entry) for entry in self._loaded.values())


def _wait(entry: ModelVersion, fault: str) -> ModelVersion:
    return replace(entry, state=State.UNAVAILABLE, reason=fault, config=None, load_s=0.0)


def _list_models(entry: ModelVersion) -> list[str]:
    return list_step_models(entry.config.proto) if entry.config is not None else []
