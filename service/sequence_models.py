"""Which models of a repository keep sequences, as far as their configurations tell."""

from collections.abc import Iterable

from service.config_text import ModelConfigError
from service.model_config import read_config
from service.model_folders import ModelFolder, ModelFolderError, find_config
from service.pb.model_config_pb2 import ModelConfig


def find_sequence_models(folders: Iterable[ModelFolder]) -> set[str]:
    """Names of the models that keep sequences, and of the ensembles of which a step does, at whatever depth."""
    protos = {folder.name: proto for folder in folders if (proto := _read_proto(folder)) is not None}
    found = {name for name, proto in protos.items() if proto.HasField("sequence_batching")}
    steps = {name: {step.model_name for step in proto.ensemble_scheduling.step} for name, proto in protos.items()}
    while more := {name for name in protos if name not in found and steps[name] & found}:
        found |= more
    return found


def _read_proto(folder: ModelFolder) -> ModelConfig | None:
    """What a model's file says; None where the service will say what is wrong with it."""
    try:
        return read_config(find_config(folder), folder.name).proto
    except (ModelConfigError, ModelFolderError):
        return None
