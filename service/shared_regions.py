"""The rpcs about shared memory: which regions there are, and, for callers of this machine, registering them."""

import grpc

from kernels.shared_memory import SharedMemory
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.permissions import Permissions
from service.status import NotFoundError, answers

CONTROL = "shared_memory"


class SharedMemoryServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """A part of the servicer of GRPCInferenceService."""

    def __init__(self, shared_memory: SharedMemory, permissions: Permissions):
        self._shared_memory = shared_memory
        self._permissions = permissions

    @answers
    def SystemSharedMemoryStatus(  # noqa: N802, D102 - the protocol's names and words
        self, request: pb.SystemSharedMemoryStatusRequest, context: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryStatusResponse:
        self._permissions.check(CONTROL, context)
        found = self._shared_memory.regions()
        if request.name:
            if request.name not in found:
                raise _unknown(request.name)
            found = {request.name: found[request.name]}
        answer = pb.SystemSharedMemoryStatusResponse()
        for name, (key, offset, byte_size) in found.items():
            row = answer.regions[name]
            row.name, row.key, row.offset, row.byte_size = name, key, offset, byte_size
        return answer

    @answers
    def SystemSharedMemoryRegister(  # noqa: N802, D102
        self, request: pb.SystemSharedMemoryRegisterRequest, context: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryRegisterResponse:
        self._permissions.check(CONTROL, context)
        self._shared_memory.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    @answers
    def SystemSharedMemoryUnregister(  # noqa: N802, D102
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._permissions.check(CONTROL, context)
        if request.name:
            self._shared_memory.unregister(request.name)
        else:
            self._shared_memory.unregister_all()
        return pb.SystemSharedMemoryUnregisterResponse()

    @answers
    def CudaSharedMemoryStatus(  # noqa: N802, D102
        self, request: pb.CudaSharedMemoryStatusRequest, context: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryStatusResponse:
        self._permissions.check(CONTROL, context)
        found = self._shared_memory.cuda_regions()
        if request.name:
            if request.name not in found:
                raise _unknown(request.name)
            found = {request.name: found[request.name]}
        answer = pb.CudaSharedMemoryStatusResponse()
        for name, (gpu, byte_size) in found.items():
            row = answer.regions[name]
            row.name, row.device_id, row.byte_size = name, gpu, byte_size
        return answer

    @answers
    def CudaSharedMemoryRegister(  # noqa: N802, D102
        self, request: pb.CudaSharedMemoryRegisterRequest, context: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryRegisterResponse:
        self._permissions.check(CONTROL, context)
        self._shared_memory.register_cuda(request.name, request.raw_handle, request.device_id, request.byte_size)
        return pb.CudaSharedMemoryRegisterResponse()

    @answers
    def CudaSharedMemoryUnregister(  # noqa: N802, D102
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        self._permissions.check(CONTROL, context)
        if request.name:
            self._shared_memory.unregister_cuda(request.name)
        else:
            self._shared_memory.unregister_all_cuda()
        return pb.CudaSharedMemoryUnregisterResponse()


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"unknown shared memory region {name!r}")
