"""Brings one model version to where it can serve: verified, in a session, completed, warmed up, not yet reachable."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.engine import InferError
from kernels.ensemble import EnsembleError
from kernels.session import SessionError
from kernels.version_table import LoadedVersion
from service.config_text import FILE_NAME, ModelConfigError
from service.device_config import GRAPHS_FIELD, is_on_gpu
from service.ensemble_config import complete_ensemble, make_ensemble
from service.low_priority import LowPriorityThreads
from service.model_folders import ModelFolder, ModelFolderError
from service.model_plan import ModelPlan
from service.model_sessions import CPU, list_usable_gpus, open_sessions
from service.onnx_file import OnnxFileError, check_self_contained
from service.sequence_rules import make_sequence_rules
from service.serving_config import ServingConfig, complete_config
from service.tensor_interface import make_interface
from service.uneven_rules import make_uneven_rules
from service.warmup import make_warmups

if TYPE_CHECKING:
    from kernels.engine import Engine
    from kernels.parking import DormantModel
    from kernels.session import Session


class WarmupError(Exception):
    """A run of model_warmup failed; the text says which and why."""


# Errors whose text tells an operator what is wrong with a model.
LOAD_ERRORS = (ModelFolderError, ModelConfigError, OnnxFileError, SessionError, WarmupError, EnsembleError)
# Sessions that are made at a time, each of which may keep a processor busy.
PARALLEL_SESSIONS = 4
# How long whoever needs memory waits until it is free, in seconds: longer where what is let go turns out to be in use.
LETTING_GO_S = 1.0
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
        self._gpus = list_usable_gpus()
        self._gpu_loads = threading.Lock()
        # Of its own, so that what goes need not wait for what comes.
        self._retiring = LowPriorityThreads(1, "retiring")

    def prepare(self, plan: ModelPlan, version: int) -> PreparedVersion:
        """Load one version and warm it up; blocks. What comes of it is for the engine's exchange, or its retire.

        Raises
        ------
        ModelFolderError, ModelConfigError, OnnxFileError, SessionError, WarmupError, EnsembleError
            The version cannot serve.
        """
        started_s = time.monotonic()
        if plan.written.is_ensemble:
            config, handle = self._prepare_ensemble(plan, version)
            return PreparedVersion(config, handle, time.monotonic() - started_s)
        path, written = plan.find_model_file(version), plan.written
        check_self_contained(path)
        # While a GPU records a run, CUDA refuses every thread of the process some calls, for memory among them.
        is_apart = any(is_on_gpu(group, self._gpus) for group in written.devices.groups)
        with self._gpu_loads if is_apart else nullcontext():
            config, handle = self._load(plan, path, version)
        return PreparedVersion(config, handle, time.monotonic() - started_s)

    def _load(self, plan: ModelPlan, path: Path, version: int) -> tuple[ServingConfig, LoadedVersion]:
        written = plan.written
        opened = open_sessions(path, written, self._gpus, self._threads)
        first = opened.sessions[0]
        config = complete_config(
            plan.folder.name,
            written,
            first.inputs,
            first.outputs,
            self._default_max_batch_size,
            opened.gpus,
            opened.instance_count * len(opened.sessions),
        )
        for session in opened.sessions:
            session.narrow_inputs(config.model_inputs)
            if config.graph_batches and session.device != CPU:
                _record_batches(session, config.graph_batches)
        handle = self._engine.prepare(
            plan.folder.name,
            version,
            opened.sessions,
            max_batch_size=config.max_batch_size,
            queue_delay_us=config.queue_delay_us,
            queueing=config.queueing,
            instance_count=opened.instance_count,
            buffer_sets=opened.buffer_sets,
            cache_replies=config.proto.response_cache.enable,
            interface=make_interface(first, config, plan.folder.path),
            sequences=make_sequence_rules(first, config.sequences, plan.folder),
            uneven=make_uneven_rules(first, config.uneven),
        )
        try:
            self._warm_up(config, plan, handle)
        except BaseException:
            self._engine.retire([handle])
            raise
        return config, handle

    def _prepare_ensemble(self, plan: ModelPlan, version: int) -> tuple[ServingConfig, LoadedVersion]:
        """An ensemble whose steps cannot serve now waits for them, unless it would take the place of one that runs."""
        name = plan.folder.name
        config = complete_ensemble(name, plan.written)
        graph = make_ensemble(config, plan.folder.path)
        handle = self._engine.prepare_ensemble(
            name,
            version,
            graph,
            max_batch_size=config.max_batch_size,
            cache_replies=config.proto.response_cache.enable,
        )
        fault = self._engine.find_fault(handle)
        if fault and self._engine.ensembles().get((name, version), fault) is None:
            self._engine.retire([handle])
            raise EnsembleError(fault)
        return config, handle

    def retire(self, entries: Collection["LoadedVersion | DormantModel"]) -> None:
        """As the engine's, beside serving: to free a large session is milliseconds of the system's work."""
        loaded = [entry for entry in entries if isinstance(entry, LoadedVersion)]
        self._engine.retire([entry for entry in entries if not isinstance(entry, LoadedVersion)])
        if loaded:
            # Not on the one thread, for which others wait.
            self._engine.finish_sequences(loaded)
            self._retiring.run(self._engine.retire, loaded)

    def let_go(self, entries: "Collection[LoadedVersion | DormantModel]") -> None:
        """As retire, of what was idle a moment ago: a request or sequence that has come since is not waited for."""
        retiring = threading.Thread(target=self.retire, args=(entries,), name="letting-go", daemon=True)
        retiring.start()
        retiring.join(LETTING_GO_S)

    def _warm_up(self, config: ServingConfig, plan: ModelPlan, handle: LoadedVersion) -> None:
        for run in make_warmups(config, plan.folder):
            for _ in range(run.count):
                self._check_going()
                try:
                    self._engine.infer(run.message, target=handle)
                except InferError as error:
                    raise WarmupError(f"model_warmup {run.name!r}: {error.message}") from None


def _record_batches(session: "Session", sizes: tuple[int, ...]) -> None:
    try:
        session.record_batches(sizes)
    except SessionError as error:
        raise SessionError(f"{FILE_NAME}: {GRAPHS_FIELD}: {error}") from None


def explain_failure(error: Exception, folder: ModelFolder, version: int | None = None) -> str:
    """What callers may hear of a load that failed; the detail of an error that nobody foresaw goes to the log alone."""
    if isinstance(error, LOAD_ERRORS):
        # ONNX Runtime names the file by its full path, which is nobody's business outside.
        return str(error).replace(f"{folder.path.parent}/", "").strip()
    logger.error("model failed to load", exc_info=error, extra={"model": folder.name, "version": version})
    return UNFORESEEN_FAILURE
