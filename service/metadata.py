"""The rpcs that tell what there is: liveness, readiness, metadata of server and models, the repository's index."""

import functools

from kernels.session import TensorSpec
from kernels.shared_memory import SharedMemory
from service import __version__
from service.health import HealthBoard
from service.model_control import ModelControl
from service.observing import Observed, ObservingServicer
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.repository import Repository, State
from service.shared_regions import SharedMemoryServicer
from service.status import UnimplementedError, answers, describe_error

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME = SERVICE.full_name
METHODS = SERVICE.methods_by_name

BOUND_TO_ENGINE = frozenset({"ModelInfer", "ModelStreamInfer"})

SERVER_NAME = "sluice"
# The protocol's extensions that are a matter of inference, and work wholly.
INFERENCE_EXTENSIONS = ("binary_tensor_data", "classification")
# The others, with the rpcs that each consists of.
RPC_EXTENSIONS = {
    "logging": ("LogSettings",),
    "model_configuration": ("ModelConfig",),
    "model_repository": ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    "model_repository(unload_dependents)": ("RepositoryModelUnload",),
    "statistics": ("ModelStatistics",),
    "system_shared_memory": ("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    "cuda_shared_memory": ("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    "trace": ("TraceSetting",),
}


class InferenceServicer(ObservingServicer, SharedMemoryServicer):
    """The synchronous rpcs of GRPCInferenceService; runs on any transport that takes grpcio servicers.

    ModelInfer and ModelStreamInfer are bound to the engine by the transport and never come here. What is not served
    answers UNIMPLEMENTED.
    """

    def __init__(
        self,
        repository: Repository,
        board: HealthBoard,
        observed: Observed,
        shared_memory: SharedMemory,
        control: ModelControl,
    ):
        ObservingServicer.__init__(self, repository, observed)
        SharedMemoryServicer.__init__(self, shared_memory, observed.permissions)
        self._board = board
        self._control = control
        for name in UNSERVED:
            setattr(self, name, functools.partial(_refuse, name))

    @answers
    def ServerLive(self, request, context):  # noqa: N802, D102 - the protocol's names and words
        return pb.ServerLiveResponse(live=True)

    @answers
    def ServerReady(self, request, context):  # noqa: N802, D102
        return pb.ServerReadyResponse(ready=self._board.is_serving)

    @answers
    def ModelReady(self, request, context):  # noqa: N802, D102
        entry = self._repository.find(request.name, request.version)
        return pb.ModelReadyResponse(ready=entry.state is State.READY and not self._board.is_draining)

    @answers
    def ServerMetadata(self, request, context):  # noqa: N802, D102
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    @answers
    def ModelMetadata(self, request, context):  # noqa: N802, D102
        entry = self._repository.find_described(request.name, request.version)
        ready = [one for one in self._repository.list_versions(request.name) if one.state is State.READY]
        return pb.ModelMetadataResponse(
            name=entry.name,
            versions=[str(one.version) for one in ready],
            platform=entry.config.proto.platform,
            inputs=map(_describe_tensor, entry.config.inputs),
            outputs=map(_describe_tensor, entry.config.outputs),
        )

    @answers
    def RepositoryIndex(self, request, context):  # noqa: N802, D102
        return self._control.index(request, context)

    @answers
    def RepositoryModelLoad(self, request, context):  # noqa: N802, D102
        return self._control.load(request, context)

    @answers
    def RepositoryModelUnload(self, request, context):  # noqa: N802, D102
        return self._control.unload(request, context)


def _is_served(name: str) -> bool:
    """Whether an rpc is answered by the class above or taken by the transport."""
    contract = open_inference_pb2_grpc.GRPCInferenceServiceServicer
    return name in BOUND_TO_ENGINE or getattr(InferenceServicer, name) is not getattr(contract, name)


UNSERVED = sorted(name for name in METHODS if not _is_served(name))
# Clients decide by these names what to call.
EXTENSIONS = sorted(
    [*INFERENCE_EXTENSIONS, *(name for name, rpcs in RPC_EXTENSIONS.items() if all(map(_is_served, rpcs)))]
)


def _refuse(name: str, request: object, context: object) -> None:
    code, text = describe_error(UnimplementedError(f"{name} is not served by this version of {SERVER_NAME}"))
    context.abort(code, text)


def _describe_tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
