"""Brings one model version to where it can serve: verified, in a session, completed, warmed up, not yet reachable."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.engine import InferError
from kernels.runtime import start_runtime
from kernels.session import Session, SessionError
from kernels.version_table import LoadedVersion
from service.config_text import ModelConfigError
from service.low_priority import LowPriorityThreads
from service.model_config import WrittenConfig
from service.model_folders import ModelFolder, ModelFolderError
from service.model_plan import ModelPlan
from service.onnx_file import OnnxFileError, check_self_contained
from service.serving_config import ServingConfig, complete_config
from service.tensor_interface import make_interface
from service.warmup import make_warmups

if TYPE_CHECKING:
    from kernels.engine import Engine
    from kernels.parking import DormantModel


class WarmupError(Exception):
    """A run of model_warmup failed; the text says which and why."""


# Errors whose text tells an operator what is wrong with a model.
LOAD_ERRORS = (ModelFolderError, ModelConfigError, OnnxFileError, SessionError, WarmupError)
# Sessions that are made at a time, each of which may keep a processor busy.
PARALLEL_SESSIONS = 4
UNFORESEEN_FAILURE = "loading failed for a reason that the server's log has"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedVersion:
    """A version that could serve: how, what the engine holds of it, and how long it took, in seconds."""

    config: ServingConfig
    handle: LoadedVersion
    load_s: float


class VersionLoader:
    """Loads versions into an engine, where they wait to be put in place; safe to use from any thread.

    Parameters
    ----------
    default_max_batch_size
        For models that can be batched and whose configuration does not say.
    check_going
        Called before each run of a warm-up; what it raises ends the load.
    """

    def __init__(self, engine: "Engine", default_max_batch_size: int, check_going: Callable[[], None] = lambda: None):
        self._engine = engine
        self._default_max_batch_size = default_max_batch_size
        self._check_going = check_going
        self._threads = LowPriorityThreads(PARALLEL_SESSIONS, "loading")
        # Of its own, so that what goes need not wait for what comes.
        self._retiring = LowPriorityThreads(1, "retiring")

    def prepare(self, plan: ModelPlan, version: int) -> PreparedVersion:
        """Load one version and warm it up; blocks. What comes of it is for the engine's exchange, or its retire.

        Raises
        ------
        ModelFolderError, ModelConfigError, OnnxFileError, SessionError, WarmupError
            The version cannot serve.
        """
        started_s = time.monotonic()
        path, written = plan.find_model_file(version), plan.written
        check_self_contained(path)
        session = self._open_session(path, written)
        config = complete_config(
            plan.folder.name, written, session.inputs, session.outputs, self._default_max_batch_size
        )
        session.narrow_inputs(config.model_inputs)
        handle = self._engine.prepare(
            plan.folder.name,
            version,
            session,
            max_batch_size=config.max_batch_size,
            queue_delay_us=config.queue_delay_us,
            instance_count=config.instance_count,
            interface=make_interface(session, config, plan.folder.path),
        )
        try:
            self._warm_up(config, plan, handle)
        except BaseException:
            self._engine.retire([handle])
            raise
        return PreparedVersion(config, handle, time.monotonic() - started_s)

    def retire(self, entries: Collection["LoadedVersion | DormantModel"]) -> None:
        """As the engine's, beside serving: to free a large session is milliseconds of the system's work."""
        if any(isinstance(entry, LoadedVersion) for entry in entries):
            self._retiring.run(self._engine.retire, entries)
        else:
            self._engine.retire(entries)

    def _open_session(self, path: Path, written: WrittenConfig) -> Session:
        """Open a model beside serving: at low priority, unless it brings threads of its own, which would keep that."""
        intra, inter = written.intra_op_threads, written.inter_op_threads
        optional = [given.name for given in written.proto.input if given.optional]
        if intra or inter:
            return Session(str(path), intra_op_threads=intra, inter_op_threads=inter, optional_inputs=optional)
        start_runtime()
        return self._threads.run(Session, str(path), optional_inputs=optional)

    def _warm_up(self, config: ServingConfig, plan: ModelPlan, handle: LoadedVersion) -> None:
        for run in make_warmups(config, plan.folder):
            for _ in range(run.count):
                self._check_going()
                try:
                    self._engine.infer(run.message, target=handle)
                except InferError as error:
                    raise WarmupError(f"model_warmup {run.name!r}: {error.message}") from None


def explain_failure(error: Exception, folder: ModelFolder, version: int | None = None) -> str:
    """What callers may hear of a load that failed; the detail of an error that nobody foresaw goes to the log alone."""
    if isinstance(error, LOAD_ERRORS):
        # ONNX Runtime names the file by its full path, which is nobody's business outside.
        return str(error).replace(f"{folder.path.parent}/", "").strip()
    logger.error("model failed to load", exc_info=error, extra={"model": folder.name, "version": version})
    return UNFORESEEN_FAILURE
