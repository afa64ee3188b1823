"""The rpcs that tell what there is: liveness, readiness, metadata of server and models, the repository's index."""

import functools
import inspect
from collections.abc import Callable

from kernels.session import TensorSpec
from service import __version__
from service.health import HealthBoard
from service.model_config import PLATFORM
from service.model_control import ModelControl
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.repository import Repository, State
from service.status import UnimplementedError, describe_error

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME = SERVICE.full_name
METHODS = SERVICE.methods_by_name

SERVER_NAME = "sluice"
# The protocol's extensions that work wholly; clients decide by these names what to call.
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_repository(unload_dependents)")


def _answers(method: Callable[..., object]) -> Callable[..., object]:
    """Turn an error of a method (servicer, request, and perhaps context) into the status of its rpc."""
    takes_context = len(inspect.signature(method).parameters) == 3

    @functools.wraps(method)
    def answer(self: "InferenceServicer", request: object, context: object) -> object:
        try:
            return method(self, request, context) if takes_context else method(self, request)
        except Exception as error:
            code, text = describe_error(error)
        return context.abort(code, text)

    return answer


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The synchronous rpcs of GRPCInferenceService; runs on any transport that takes grpcio servicers.

    ModelInfer and ModelStreamInfer are bound to the engine by the transport and never come here. What is not served
    answers UNIMPLEMENTED.
    """

    def __init__(self, repository: Repository, board: HealthBoard, control: ModelControl):
        self._repository = repository
        self._board = board
        self._control = control
        for name in UNSERVED:
            setattr(self, name, functools.partial(_refuse, name))

    @_answers
    def ServerLive(self, request):  # noqa: N802, D102 - the protocol's names and words
        return pb.ServerLiveResponse(live=True)

    @_answers
    def ServerReady(self, request):  # noqa: N802, D102
        return pb.ServerReadyResponse(ready=self._board.is_serving)

    @_answers
    def ModelReady(self, request):  # noqa: N802, D102
        entry = self._repository.find(request.name, request.version)
        return pb.ModelReadyResponse(ready=entry.state is State.READY and not self._board.is_draining)

    @_answers
    def ServerMetadata(self, request):  # noqa: N802, D102
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    @_answers
    def ModelMetadata(self, request):  # noqa: N802, D102
        entry = self._repository.find_ready(request.name, request.version)
        ready = [one for one in self._repository.list_versions(request.name) if one.state is State.READY]
        return pb.ModelMetadataResponse(
            name=entry.name,
            versions=[str(one.version) for one in ready],
            platform=PLATFORM,
            inputs=map(_describe_tensor, entry.config.inputs),
            outputs=map(_describe_tensor, entry.config.outputs),
        )

    @_answers
    def RepositoryIndex(self, request):  # noqa: N802, D102
        return self._control.index(request)

    @_answers
    def RepositoryModelLoad(self, request, context):  # noqa: N802, D102
        return self._control.load(request, context)

    @_answers
    def RepositoryModelUnload(self, request):  # noqa: N802, D102
        return self._control.unload(request)


# Every rpc of the service that the class above does not answer and the transport does not take.
UNSERVED = sorted(set(METHODS) - set(vars(InferenceServicer)) - {"ModelInfer", "ModelStreamInfer"})


def _refuse(name: str, request: object, context: object) -> None:
    code, text = describe_error(UnimplementedError(f"{name} is not served by this version of {SERVER_NAME}"))
    context.abort(code, text)


def _describe_tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
