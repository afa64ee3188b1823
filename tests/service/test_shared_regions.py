"""The rpcs about shared memory: who may call them, what they answer and how they refuse."""

import grpc
import pytest

from kernels.engine import Engine
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.permissions import Permissions
from tests.aio_server import running_server
from tests.host_cuda import GpuMemory, open_host_cuda
from tests.kernels.memory_objects import MemoryObject
from tests.service.servicers import make_servicer, serve_folder

TIMEOUT_S = 30
# By which a proxy says that it speaks for somebody else.
FORWARDED = (("x-forwarded-for", "192.0.2.7"),)


@pytest.fixture
def serve(tmp_path):
    """Serve the servicer by permissions; give a stub on it. Memory of GPUs is that of host_cuda.c."""
    engine = Engine(workers=1)
    engine.shared_memory.use_cuda(open_host_cuda())
    opened = []

    def start(permissions):
        servicer = make_servicer(engine, *serve_folder(tmp_path, engine), permissions=permissions)
        add = open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
        running = running_server(lambda server: add(servicer, server))
        channel = grpc.insecure_channel(running.__enter__().address)
        opened.append((channel, running))
        return open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)

    yield start
    for channel, running in opened:
        channel.close()
        running.__exit__(None, None, None)
    engine.close()


@pytest.fixture
def stub(serve):
    """A stub for a caller of this machine."""
    return serve(Permissions())


@pytest.fixture
def memory():
    """An object of 64 bytes."""
    with MemoryObject(bytes(64)) as made:
        yield made


def register(stub, name, key, offset=0, byte_size=64, **options):
    """Register a region."""
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=byte_size)
    return stub.SystemSharedMemoryRegister(request, timeout=TIMEOUT_S, **options)


def refused(call, request, **options):
    """Status and text of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=TIMEOUT_S, **options)
    return caught.value.code(), caught.value.details()


def list_regions(stub, name=""):
    """What the server says that there is."""
    answer = stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name=name), timeout=TIMEOUT_S)
    return {name: (row.name, row.key, row.offset, row.byte_size) for name, row in answer.regions.items()}


def test_regions_are_registered_told_and_unregistered(stub, memory):
    """One by its name, or all."""
    register(stub, "first", memory.key)
    register(stub, "second", memory.key, offset=8, byte_size=16)
    rows = {"first": ("first", memory.key, 0, 64), "second": ("second", memory.key, 8, 16)}
    assert list_regions(stub) == rows
    assert list_regions(stub, "second") == {"second": rows["second"]}
    for name, left in (("first", {"second"}), ("first", {"second"}), ("", set())):
        request = pb.SystemSharedMemoryUnregisterRequest(name=name)
        stub.SystemSharedMemoryUnregister(request, timeout=TIMEOUT_S)
        assert set(list_regions(stub)) == left


def test_wrong_registrations_have_the_contracts_statuses(stub, memory):
    """A name that is taken, a key that is none, a size beyond the object, a name that is unknown."""
    register(stub, "taken", memory.key)
    for arguments, code, text in [
        ({"name": "taken", "key": memory.key, "byte_size": 1}, "ALREADY_EXISTS", "'taken' is registered already"),
        ({"name": "new", "key": "/missing/key", "byte_size": 1}, "INVALID_ARGUMENT", "key: expected the name of one"),
        ({"name": "new", "key": memory.key, "byte_size": 65}, "INVALID_ARGUMENT", "the region ends at byte 65"),
        ({"name": "new", "key": memory.key, "byte_size": 2**64 - 1, "offset": 2**64 - 1}, "INVALID_ARGUMENT", "2^63"),
        ({"key": memory.key, "byte_size": 1}, "INVALID_ARGUMENT", "name: expected 1 to 255 bytes"),
    ]:
        given = refused(stub.SystemSharedMemoryRegister, pb.SystemSharedMemoryRegisterRequest(**arguments))
        assert (given[0], text in given[1]) == (grpc.StatusCode[code], True), given
    given = refused(stub.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest(name="none"))
    assert given == (grpc.StatusCode.NOT_FOUND, "unknown shared memory region 'none'")


def test_callers_of_other_machines_are_refused_unless_allowed(serve, memory):
    """One that is forwarded is another's, whoever forwards it."""
    calls = {
        "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(name="r", key=memory.key, byte_size=1),
        "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest(),
        "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest(),
    }
    stub = serve(Permissions())
    for name, request in calls.items():
        code, text = refused(getattr(stub, name), request, metadata=FORWARDED)
        assert (code, "remote_controls" in text) == (grpc.StatusCode.PERMISSION_DENIED, True)
    assert list_regions(stub) == {}
    allowing = serve(Permissions(["shared_memory"]))
    for name, request in calls.items():
        getattr(allowing, name)(request, timeout=TIMEOUT_S, metadata=FORWARDED)


# ---- of GPUs


def register_cuda(stub, name, memory, byte_size=64, device_id=0, **options):
    """Register a region of a GPU's memory."""
    request = pb.CudaSharedMemoryRegisterRequest(
        name=name, raw_handle=memory.handle, device_id=device_id, byte_size=byte_size
    )
    return stub.CudaSharedMemoryRegister(request, timeout=TIMEOUT_S, **options)


def list_cuda_regions(stub, name=""):
    """What the server says that there is."""
    answer = stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(name=name), timeout=TIMEOUT_S)
    return {name: (row.name, row.device_id, row.byte_size) for name, row in answer.regions.items()}


def test_regions_of_gpus_are_registered_told_and_unregistered(stub, memory):
    """One by its name, or all; those of the system stay."""
    register(stub, "plain", memory.key)
    with GpuMemory(bytes(64)) as first, GpuMemory(bytes(128), gpu=1) as second:
        register_cuda(stub, "first", first)
        register_cuda(stub, "second", second, byte_size=128, device_id=1)
        rows = {"first": ("first", 0, 64), "second": ("second", 1, 128)}
        assert list_cuda_regions(stub) == rows
        assert list_cuda_regions(stub, "second") == {"second": rows["second"]}
        for name, left in (("first", {"second"}), ("first", {"second"}), ("plain", {"second"}), ("", set())):
            request = pb.CudaSharedMemoryUnregisterRequest(name=name)
            stub.CudaSharedMemoryUnregister(request, timeout=TIMEOUT_S)
            assert set(list_cuda_regions(stub)) == left
        assert (first.opened, second.opened) == (0, 0)
    assert set(list_regions(stub)) == {"plain"}


def test_wrong_registrations_of_gpus_have_the_contracts_statuses(stub, memory):
    """A name that is taken or unknown, a handle that is none, a GPU that is not there, too large a size."""
    register(stub, "plain", memory.key)
    with GpuMemory(bytes(64)) as given:
        for arguments, code, text in [
            ({"name": "plain"}, "ALREADY_EXISTS", "'plain' is registered already"),
            ({"raw_handle": b"short"}, "INVALID_ARGUMENT", "raw_handle: expected the 64 bytes"),
            ({"raw_handle": bytes(64)}, "INVALID_ARGUMENT", "'new' cannot be registered: invalid resource handle"),
            ({"device_id": 7}, "INVALID_ARGUMENT", "'new' cannot be registered: device_id: there is no GPU 7"),
            ({"byte_size": 65}, "INVALID_ARGUMENT", "byte_size: the region has 65 bytes, and the memory 64"),
            ({"byte_size": 0}, "INVALID_ARGUMENT", "byte_size: expected at least 1"),
            ({"name": ""}, "INVALID_ARGUMENT", "name: expected 1 to 255 bytes"),
        ]:
            whole = {"name": "new", "raw_handle": given.handle, "device_id": 0, "byte_size": 64, **arguments}
            found = refused(stub.CudaSharedMemoryRegister, pb.CudaSharedMemoryRegisterRequest(**whole))
            assert (found[0], text in found[1]) == (grpc.StatusCode[code], True), found
        assert given.opened == 0
    found = refused(stub.CudaSharedMemoryStatus, pb.CudaSharedMemoryStatusRequest(name="plain"))
    assert found == (grpc.StatusCode.NOT_FOUND, "unknown shared memory region 'plain'")


def test_callers_of_other_machines_may_not_share_gpus(serve):
    """Unless the same setting allows it as for system shared memory."""
    with GpuMemory(bytes(64)) as memory:
        calls = {
            "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterRequest(
                name="r", raw_handle=memory.handle, byte_size=1
            ),
            "CudaSharedMemoryStatus": pb.CudaSharedMemoryStatusRequest(),
            "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterRequest(),
        }
        stub = serve(Permissions())
        for name, request in calls.items():
            code, text = refused(getattr(stub, name), request, metadata=FORWARDED)
            assert (code, "remote_controls" in text) == (grpc.StatusCode.PERMISSION_DENIED, True)
        assert memory.opened == 0
        allowing = serve(Permissions(["shared_memory"]))
        for name, request in calls.items():
            getattr(allowing, name)(request, timeout=TIMEOUT_S, metadata=FORWARDED)
