"""Finds out what a server would make of a model repository, by loading each version as it would, one after another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernels.engine import Engine
from service.model_folders import ModelFolder, list_models
from service.model_plan import plan_model
from service.serving_config import ServingConfig
from service.version_loader import VersionLoader, explain_failure

LOADS = "loads"
REFUSED = "refused"
NOT_SERVED = "not served"


@dataclass(frozen=True)
class Finding:
    """What would become of one version.

    Attributes
    ----------
    version
        None for a model of which nothing can be told.
    verdict
        LOADS, REFUSED, or NOT_SERVED for a version that the model's policy leaves out.
    labels
        Names under which it could be called.
    without_effect
        Fields of the configuration that would change nothing.
    reason
        Why it is refused.
    """

    model: str
    version: int | None
    verdict: str
    labels: tuple[str, ...] = ()
    config: ServingConfig | None = None
    without_effect: tuple[str, ...] = ()
    reason: str = ""


def check_repository(root: Path, default_max_batch_size: int) -> Iterator[Finding]:
    """Every version of every model, by name and number, each as soon as it has been loaded and freed again.

    Raises
    ------
    ModelFolderError
        The repository itself cannot be read.
    """
    engine = Engine()
    try:
        loader = VersionLoader(engine, default_max_batch_size)
        for folder in list_models(root):
            yield from _check_model(folder, engine, loader)
    finally:
        engine.close()


def _check_model(folder: ModelFolder, engine: Engine, loader: VersionLoader) -> Iterator[Finding]:
    try:
        plan = plan_model(folder)
    except Exception as error:
        for version in folder.versions or (None,):
            yield Finding(folder.name, version, REFUSED, reason=explain_failure(error, folder, version))
        return
    for version in sorted({*folder.versions, *plan.versions}):
        labels = tuple(sorted(label for label, number in plan.written.labels.items() if number == version))
        if version not in plan.versions:
            yield Finding(folder.name, version, NOT_SERVED)
            continue
        try:
            prepared = loader.prepare(plan, version)
        except Exception as error:
            yield Finding(folder.name, version, REFUSED, labels, reason=explain_failure(error, folder, version))
        else:
            engine.retire([prepared.handle])
            yield Finding(folder.name, version, LOADS, labels, prepared.config, plan.written.without_effect)
