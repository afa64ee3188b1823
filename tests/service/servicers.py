"""The servicer of GRPCInferenceService as a server puts it together, for tests of its parts."""

from service.health import HealthBoard
from service.lifecycle import Lifecycle
from service.log_settings import LogSettings
from service.metadata import InferenceServicer
from service.model_control import ModelControl
from service.observing import Observed
from service.permissions import Permissions
from service.repository import Repository
from service.trace_settings import TraceSettings


def make_servicer(engine, lifecycle, repository, *, board=None, permissions=None, mode="none"):
    """A servicer that tells about an engine and a repository."""
    permissions = permissions or Permissions()
    observed = Observed(engine, LogSettings("info", "json"), TraceSettings("", engine.set_tracing), permissions)
    control = ModelControl(lifecycle, repository, permissions, mode=mode)
    return InferenceServicer(repository, board or HealthBoard(), observed, engine.shared_memory, control)


def serve_folder(folder, engine):
    """The life cycle and the repository of a folder whose models are loaded."""
    repository = Repository()
    lifecycle = Lifecycle(folder, engine, repository)
    lifecycle.find_models()
    lifecycle.load_found()
    return lifecycle, repository
