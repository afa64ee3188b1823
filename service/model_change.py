"""One change of one model, from the versions that serve to those that its plan asks for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from service.model_plan import Makings, ModelPlan
from service.repository import ModelVersion, State
from service.serving_config import ServingConfig
from service.status import UnavailableError
from service.version_loader import VersionLoader, explain_failure

if TYPE_CHECKING:
    from kernels.version_table import LoadedVersion


class ModelChange:
    """What becomes of each version; belongs to the thread that loads.

    When a version cannot be loaded, nothing is taken away: versions that serve stay, whatever the plan says of them,
    and so do the labels.

    Parameters
    ----------
    known
        All versions of the model as they are now.
    served
        What the versions that serve are made of.

    Attributes
    ----------
    handles
        What the engine holds of each version that was loaded.
    failures
        Why each of the others was not.
    """

    def __init__(self, plan: ModelPlan, known: Mapping[int | None, ModelVersion], served: Mapping[int, Makings]):
        self._plan = plan
        self._known = known
        self._before = served
        self._makings: dict[int, Makings] = {}
        self._configs: dict[int, ServingConfig] = {}
        self._load_s: dict[int, float] = {}
        self.handles: dict[int, LoadedVersion] = {}
        self.failures: dict[int, str] = {}

    @property
    def newcomers(self) -> list[int]:
        """Versions whose callers hear that they load: neither serving yet, nor dormant, whose callers wait."""
        return [version for version in self._plan.versions if version not in self._before and not self._waits(version)]

    def _waits(self, version: int) -> bool:
        return version in self._known and self._known[version].is_dormant

    def prepare(self, loader: VersionLoader, check_going: Callable[[], None]) -> None:
        """Load every version that has changed; one that fails stops no other. What check_going raises ends it."""
        for version in self._plan.versions:
            check_going()
            try:
                self._prepare_version(loader, version)
            except UnavailableError:
                raise
            except Exception as error:
                self.failures[version] = explain_failure(error, self._plan.folder, version)

    def _prepare_version(self, loader: VersionLoader, version: int) -> None:
        # Before the files are read: what changes meanwhile is then seen by the next load.
        makings = self._plan.list_makings(version)
        if self._before.get(version) != makings:
            prepared = loader.prepare(self._plan, version)
            self.handles[version], self._configs[version] = prepared.handle, prepared.config
            self._load_s[version] = prepared.load_s
        self._makings[version] = makings

    @property
    def takes_labels(self) -> bool:
        """Whether the plan's labels are in force from now on; of a model that fails, the old ones are."""
        return not (self.failures and self._before)

    @property
    def labels(self) -> Mapping[str, int]:
        """The plan's labels."""
        return self._plan.written.labels

    @property
    def replaces(self) -> bool:
        """Whether a version that served goes away or is another one now."""
        return any(version in self.handles or version not in self.served for version in self._before)

    @property
    def served(self) -> dict[int, Makings]:
        """What the versions that serve from now on are made of."""
        return (dict(self._before) if self.failures else {}) | self._makings

    def list_entries(self) -> list[ModelVersion]:
        """Every version as it is from now on, those that go among them."""
        entries = [self._describe(version) for version in self._plan.versions]
        if not (self.failures and self._before):
            gone = self._known.keys() - set(self._plan.versions)
            entries += [ModelVersion(self._name, version, State.REMOVED) for version in gone]
        return entries

    @property
    def _name(self) -> str:
        return self._plan.folder.name

    def _describe(self, version: int) -> ModelVersion:
        reason = self.failures.get(version, "")
        if version in self._configs:
            config, load_s = self._configs[version], self._load_s[version]
            return ModelVersion(self._name, version, State.READY, config=config, load_s=load_s)
        if version not in self._before:
            return ModelVersion(self._name, version, State.UNAVAILABLE, reason)
        if reason:
            return mark_failed(self._known[version], reason)
        config, load_s = _follow_choice(self._known[version].config, self._plan), self._known[version].load_s
        return ModelVersion(self._name, version, State.READY, config=config, load_s=load_s)


def mark_failed(entry: ModelVersion, reason: str) -> ModelVersion:
    """A version whose load has failed: one that serves goes on, and says why it is not the newest."""
    if entry.state is State.READY and not entry.is_dormant:
        return replace(entry, reason=f"serves what was loaded before, since loading failed: {reason}")
    return replace(entry, state=State.UNAVAILABLE, reason=reason, config=None, is_dormant=False)


def _follow_choice(config: ServingConfig, plan: ModelPlan) -> ServingConfig:
    """The configuration of a version that was not loaded again, with the policy and the labels of now."""
    proto, written = type(config.proto)(), plan.written.proto
    proto.CopyFrom(config.proto)
    proto.version_policy.CopyFrom(written.version_policy)
    if not written.HasField("version_policy"):
        proto.ClearField("version_policy")
    proto.parameters.clear()
    for name, parameter in written.parameters.items():
        proto.parameters[name].CopyFrom(parameter)
    return replace(config, proto=proto)
