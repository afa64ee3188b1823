"""Which action each method of the server is, and which field of its request names the model."""

from types import MappingProxyType
from typing import NamedTuple

from service.pb import open_inference_pb2

SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class Call(NamedTuple):
    """What a call of a method is to the policy.

    Attributes
    ----------
    action
        One of access_policy.ACTIONS; None for what every client may do.
    model_field, version_field
        The request's fields with the model and its version; None where it names none. A request that leaves the
        field of the model empty concerns no model in particular.
    """

    action: str | None
    model_field: str | None = None
    version_field: str | None = None


# A call of ModelInfer or ModelStreamInfer that names a version is a `pin` as well, and RepositoryModelLoad with
# parameters a `load_override`.
_OWN = {
    "ServerLive": Call(None),
    "ServerReady": Call(None),
    "ServerMetadata": Call("metadata"),
    "ModelInfer": Call("infer", "model_name", "model_version"),
    "ModelStreamInfer": Call("infer", "model_name", "model_version"),
    "ModelReady": Call("metadata", "name", "version"),
    "ModelMetadata": Call("metadata", "name", "version"),
    "ModelConfig": Call("metadata", "name", "version"),
    "ModelStatistics": Call("statistics", "name", "version"),
    "RepositoryIndex": Call("metadata"),
    "RepositoryModelLoad": Call("load", "model_name"),
    "RepositoryModelUnload": Call("load", "model_name"),
    "SystemSharedMemoryStatus": Call("shared_memory"),
    "SystemSharedMemoryRegister": Call("shared_memory"),
    "SystemSharedMemoryUnregister": Call("shared_memory"),
    "CudaSharedMemoryStatus": Call("shared_memory"),
    "CudaSharedMemoryRegister": Call("shared_memory"),
    "CudaSharedMemoryUnregister": Call("shared_memory"),
    "TraceSetting": Call("trace_settings", "model_name"),
    "LogSettings": Call("log_settings"),
}
_OTHERS = {
    **{f"/grpc.health.v1.Health/{method}": Call(None) for method in ("Check", "Watch", "List")},
    **{
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": Call("metadata")
        for version in ("v1", "v1alpha")
    },
}
# By the path of the method. What is not in here is allowed to nobody.
CALLS = MappingProxyType({f"/{SERVICE.full_name}/{method}": call for method, call in _OWN.items()} | _OTHERS)
