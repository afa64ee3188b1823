"""Server reflection, v1alpha and v1, so that grpcurl and its like need no proto files."""

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.pb import open_inference_pb2

V1ALPHA_NAME = reflection.SERVICE_NAME
V1_NAME = "grpc.reflection.v1.ServerReflection"
METHOD = "ServerReflectionInfo"

FILES = (open_inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)


def add_reflection(server: grpc.Server, service_names: Iterable[str], *, asynchronous: bool = False) -> None:
    """Serve descriptions of the named services and of reflection itself, on both names that clients ask for.

    Parameters
    ----------
    server
        Whatever takes registered method handlers.
    service_names
        Full names of the services that the server has.
    asynchronous
        Whether the server runs coroutines; each kind of server gets the servicer of its kind.
    """
    kind = reflection.aio if asynchronous else reflection
    servicer = kind.ReflectionServicer([*service_names, V1ALPHA_NAME, V1_NAME], pool=_MethodPool(_build_pool()))
    # v1 is v1alpha under another name: the same messages on the wire.
    handlers = {
        METHOD: grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    for name in (V1ALPHA_NAME, V1_NAME):
        server.add_registered_method_handlers(name, handlers)


class _MethodPool:
    """A pool that also finds the file of a method, which clients may ask for and protobuf's own pool does not know."""

    def __init__(self, pool: descriptor_pool.DescriptorPool):
        self._pool = pool

    def __getattr__(self, name: str) -> object:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name
        """Return the file of a symbol, or that of the service of which it names a method. Raises KeyError."""
        service, _, method = symbol.rpartition(".")
        try:
            if method in self._pool.FindServiceByName(service).methods_by_name:
                return self._pool.FindFileContainingSymbol(service)
        except KeyError:
            pass
        return self._pool.FindFileContainingSymbol(symbol)


def _build_pool() -> descriptor_pool.DescriptorPool:
    """Descriptors of what is served and of nothing else that the process happens to have imported."""
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    for file in FILES:
        _add_file(pool, file, added)
    pool.Add(_describe_v1())
    return pool


def _add_file(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    if file.name in added:
        return
    for dependency in file.dependencies:
        _add_file(pool, dependency, added)
    pool.AddSerializedFile(file.serialized_pb)
    added.add(file.name)


def _describe_v1() -> descriptor_pb2.FileDescriptorProto:
    """The v1 file, made from that of v1alpha."""
    alpha, stable = (name.rpartition(".")[0] for name in (V1ALPHA_NAME, V1_NAME))
    file = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    file.name, file.package = file.name.replace("v1alpha", "v1"), stable
    references = [field for message in file.message_type for field in message.field if field.type_name]
    for field in references:
        field.type_name = field.type_name.replace(alpha, stable)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(alpha, stable)
        method.output_type = method.output_type.replace(alpha, stable)
    return file
