"""Finds out what a server would make of a model repository, by loading each version as it would, one after another."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.engine import Engine
from service.ensemble_config import list_step_models
from service.model_folders import ModelFolder, find_model, list_models
from service.model_plan import ModelPlan, plan_model
from service.serving_config import ServingConfig
from service.version_loader import VersionLoader, explain_failure

if TYPE_CHECKING:
    from kernels.version_table import LoadedVersion

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
    with _serve_steps(plan, engine, loader):
        for version in sorted({*folder.versions, *plan.versions}):
            yield _check_version(plan, version, engine, loader)


def _check_version(plan: ModelPlan, version: int, engine: Engine, loader: VersionLoader) -> Finding:
    name, written = plan.folder.name, plan.written
    labels = tuple(sorted(label for label, number in written.labels.items() if number == version))
    if version not in plan.versions:
        return Finding(name, version, NOT_SERVED)
    try:
        prepared = loader.prepare(plan, version)
    except Exception as error:
        return Finding(name, version, REFUSED, labels, reason=explain_failure(error, plan.folder, version))
    fault = engine.find_fault(prepared.handle) if written.is_ensemble else None
    engine.retire([prepared.handle])
    if fault:
        return Finding(name, version, REFUSED, labels, reason=fault)
    return Finding(name, version, LOADS, labels, prepared.config, written.without_effect)


@contextlib.contextmanager
def _serve_steps(plan: ModelPlan, engine: Engine, loader: VersionLoader) -> Iterator[None]:
    """Have the models that an ensemble consists of serve meanwhile, as far as they can; those of a model are none."""
    entries, seen, waiting = {}, {plan.folder.name}, list_step_models(plan.written.proto)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        folder = find_model(plan.folder.path.parent, name)
        if folder is not None:
            waiting += _load_step(folder, loader, entries)
    engine.exchange(entries)
    try:
        yield
    finally:
        engine.retire(engine.exchange(dict.fromkeys(entries)))


def _load_step(
    folder: ModelFolder, loader: VersionLoader, entries: "dict[tuple[str, int], LoadedVersion | str]"
) -> list[str]:
    """Add what each version of a model is to the engine: loaded, or the reason why not. The models of its own steps."""
    try:
        plan = plan_model(folder)
    except Exception as error:
        entries.update({(folder.name, version): explain_failure(error, folder) for version in folder.versions})
        return []
    for version in plan.versions:
        try:
            entries[folder.name, version] = loader.prepare(plan, version).handle
        except Exception as error:
            entries[folder.name, version] = explain_failure(error, folder, version)
    return list_step_models(plan.written.proto)
