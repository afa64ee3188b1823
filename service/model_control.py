"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload: which of them this server takes, and from whom."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc

from service.ensemble_steps import find_step_models
from service.lifecycle import Lifecycle
from service.model_override import ModelOverride
from service.pb import open_inference_pb2 as pb
from service.permissions import Permissions
from service.repository import ModelVersion, Repository, State
from service.status import ExhaustedError, InvalidArgumentError, NotFoundError, PermissionDeniedError

OVERRIDES_CONTROL = "model_overrides"
CONFIG_PARAMETER = "config"
FILE_PREFIX = "file:"
DEPENDENTS_PARAMETER = "unload_dependents"
# Loads and unloads that run or wait at a time: each holds a thread of the servicers for as long as it takes.
MAX_CALLS = 4


class ModelControl:
    """What clients may do to the repository; safe to use from any thread.

    Parameters
    ----------
    permissions
        Who may bring configurations and files.
    mode
        The setting model_control_mode; loading and unloading is allowed with "explicit" only.
    """

    def __init__(self, lifecycle: Lifecycle, repository: Repository, permissions: Permissions, *, mode: str = "none"):
        self._lifecycle = lifecycle
        self._repository = repository
        self._mode = mode
        self._permissions = permissions
        self._places = threading.Semaphore(MAX_CALLS)

    def index(self, request: pb.RepositoryIndexRequest, context: grpc.ServicerContext) -> pb.RepositoryIndexResponse:
        """Every version there is that the caller may see, or every one of those that is READY."""
        _check_repository(request.repository_name)
        if self._mode == "explicit":
            self._lifecycle.look_around()
        is_visible = self._permissions.find_visible("metadata", context)
        entries = [entry for entry in self._repository.index() if entry.state is State.READY or not request.ready]
        seen = [entry for entry in entries if is_visible(entry.name)]
        return pb.RepositoryIndexResponse(models=map(_describe_entry, seen))

    def load(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model, or load it again with what has changed; returns when it serves."""
        self._check_allowed(request.repository_name, request.model_name)
        override = read_override_parameters(request)
        if override:
            self._permissions.check(OVERRIDES_CONTROL, context, request.model_name)
            self._check_steps(request.model_name, override, context)
        with self._take_place():
            self._lifecycle.load(request.model_name, override)
        return pb.RepositoryModelLoadResponse()

    def unload(
        self, request: pb.RepositoryModelUnloadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        """Take a model out of service; returns when what it was asked before is answered.

        With unload_dependents, an ensemble takes the models of its steps along.
        """
        self._check_allowed(request.repository_name, request.model_name)
        with_steps = False
        for name, parameter in request.parameters.items():
            if name != DEPENDENTS_PARAMETER or parameter.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidArgumentError(f"parameter {name!r}: expected {DEPENDENTS_PARAMETER!r}, true or false")
            with_steps = parameter.bool_param
        if with_steps:
            # Models of which the request does not say the names.
            self._permissions.check_action("load", context, None)
        with self._take_place():
            self._lifecycle.unload(request.model_name, with_steps=with_steps)
        return pb.RepositoryModelUnloadResponse()

    def _check_allowed(self, repository: str, model: str) -> None:
        _check_repository(repository)
        if self._mode != "explicit":
            raise PermissionDeniedError(
                "models are not loaded and unloaded by clients: expected model_control_mode 'explicit', given "
                f"{self._mode!r}"
            )
        if not model:
            raise InvalidArgumentError("model_name: expected the name of a model, given nothing")

    def _check_steps(self, name: str, override: ModelOverride, context: grpc.ServicerContext) -> None:
        """Refuse an ensemble of what its bringer may not infer: once it is there, nobody asks for its steps again."""
        # No folder is read where a configuration is brought.
        for step in find_step_models(Path(), name, override):
            self._permissions.check_action("infer", context, step)

    @contextlib.contextmanager
    def _take_place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ExhaustedError(f"{MAX_CALLS} loads and unloads are under way; expected no more at a time")
        try:
            yield
        finally:
            self._places.release()


def read_override_parameters(request: pb.RepositoryModelLoadRequest) -> ModelOverride | None:
    """What a request brings along, or None when it brings nothing."""
    config, files = "", {}
    for name, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if name == CONFIG_PARAMETER and kind == "string_param" and parameter.string_param:
            config = parameter.string_param
        elif name.startswith(FILE_PREFIX) and kind == "bytes_param":
            files[name.removeprefix(FILE_PREFIX)] = parameter.bytes_param
        else:
            raise InvalidArgumentError(
                f"parameter {name[:200]!r}: expected 'config' with JSON as text, or 'file:<path>' with bytes"
            )
    if files and not config:
        raise InvalidArgumentError("parameter 'config': expected a configuration that goes with the files, given none")
    return ModelOverride(config, files) if config else None


def _check_repository(name: str) -> None:
    if name:
        raise NotFoundError(f"unknown repository {name!r}; the only one has no name")


def _describe_entry(entry: ModelVersion) -> pb.RepositoryIndexResponse.ModelIndex:
    version = "" if entry.version is None else str(entry.version)
    return pb.RepositoryIndexResponse.ModelIndex(
        name=entry.name, version=version, state=entry.state.value, reason=entry.reason
    )
