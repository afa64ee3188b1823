"""What the repository is told of versions that are not loaded, not yet or no longer."""

from collections.abc import Mapping, Sequence

from service.dormant_models import describe_dormant
from service.model_folders import ModelFolder
from service.model_plan import plan_model
from service.repository import UNLOADED, ModelVersion, State
from service.version_loader import explain_failure


def look_into(folder: ModelFolder) -> tuple[list[ModelVersion], Mapping[str, int]]:
    """The versions of a model that is not to be loaded yet, and their labels; UNAVAILABLE where it never could be."""
    try:
        plan = plan_model(folder)
    except Exception as error:
        return describe_folder(folder, State.UNAVAILABLE, explain_failure(error, folder)), {}
    return describe_dormant(plan, ()), plan.written.labels


def describe_folder(folder: ModelFolder, state: State, reason: str) -> list[ModelVersion]:
    """One entry for each version of a folder, or one for a folder that has none."""
    return [ModelVersion(folder.name, version, state, reason) for version in folder.versions or (None,)]


def move(entries: Sequence[ModelVersion], state: State) -> list[ModelVersion]:
    """The same versions, unloaded or on the way there."""
    return [ModelVersion(entry.name, entry.version, state, UNLOADED) for entry in entries]
