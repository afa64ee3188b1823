"""What is told of a model that is not in memory, before it was loaded and after it was put to rest."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from service.config_text import ModelConfigError
from service.declared_tensors import UndeclaredError, read_declared
from service.device_config import is_on_gpu
from service.ensemble_config import complete_ensemble
from service.model_folders import ModelFolderError, find_model
from service.model_plan import ModelPlan, plan_model
from service.model_sessions import list_usable_gpus
from service.onnx_file import OnnxFileError
from service.repository import DORMANT, ModelVersion, Repository, State
from service.serving_config import ServingConfig, complete_config
from service.status import UnavailableError


def describe_dormant(plan: ModelPlan, known: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Every version of a model that nobody has loaded as its plan has it now, and those of `known` that are gone."""
    name = plan.folder.name
    entries = [ModelVersion(name, version, State.READY, DORMANT, is_dormant=True) for version in plan.versions]
    gone = {entry.version for entry in known} - set(plan.versions)
    return entries + [ModelVersion(name, version, State.REMOVED) for version in gone]


def put_to_rest(entries: Iterable[ModelVersion]) -> list[ModelVersion]:
    """A model's versions that serve, as they are once it is out of memory; their configuration is kept."""
    return [
        replace(entry, reason=DORMANT, load_s=0.0, is_dormant=True) for entry in entries if entry.state is State.READY
    ]


class DormantConfigs:
    """Says how dormant versions will serve: from their files, or where these do not say, by loading them.

    Parameters
    ----------
    root, default_max_batch_size
        As the lifecycle has them.
    load
        Loads a model, and returns when it has been tried.
    """

    def __init__(self, root: Path, repository: Repository, default_max_batch_size: int, load: Callable[[str], None]):
        self._root = root
        self._repository = repository
        self._default_max_batch_size = default_max_batch_size
        self._load = load
        self._gpus = list_usable_gpus()

    def describe(self, entry: ModelVersion) -> ModelVersion:
        """The version with its configuration; blocks for as long as reading or loading takes.

        Raises
        ------
        UnavailableError
            It cannot be loaded, and the files do not say how it would serve.
        """
        try:
            return self._repository.note_config(entry, self._read_config(entry))
        except (ModelFolderError, ModelConfigError, OnnxFileError, UndeclaredError):
            self._load(entry.name)
        found = self._repository.find_ready(entry.name, str(entry.version))
        if found.config is None:
            raise UnavailableError(f"model {entry.name!r} version {entry.version} has changed just now")
        return found

    def _read_config(self, entry: ModelVersion) -> ServingConfig:
        folder = find_model(self._root, entry.name)
        if folder is None:
            raise ModelFolderError("the folder is gone")
        plan = plan_model(folder)
        if plan.written.is_ensemble:
            return complete_ensemble(entry.name, plan.written)
        if any(is_on_gpu(group, self._gpus) for group in plan.written.devices.groups):
            raise UndeclaredError("which GPUs its instances are on is known once they are opened")
        optional = [given.name for given in plan.written.proto.input if given.optional]
        inputs, outputs = read_declared(plan.find_model_file(entry.version), optional)
        return complete_config(entry.name, plan.written, inputs, outputs, self._default_max_batch_size)
