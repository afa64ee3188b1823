"""The rpcs about shared memory: who may call them, what they answer and how they refuse."""

import grpc
import pytest

from kernels.engine import Engine
from service.pb import open_inference_pb2 as pb
from service.pb import open_inference_pb2_grpc
from service.permissions import Permissions
from tests.aio_server import running_server
from tests.kernels.memory_objects import MemoryObject
from tests.service.servicers import make_servicer, serve_folder

TIMEOUT_S = 10
# By which a proxy says that it speaks for somebody else.
FORWARDED = (("x-forwarded-for", "192.0.2.7"),)


@pytest.fixture
def serve(tmp_path):
    """Serve the servicer by permissions; give a stub on it."""
    engine = Engine(workers=1)
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


def test_memory_of_gpus_is_told_to_be_none(stub):
    """No region is there, none can be registered, and to forget what is not there is no error."""
    assert not stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(), timeout=TIMEOUT_S).regions
    code, _ = refused(stub.CudaSharedMemoryStatus, pb.CudaSharedMemoryStatusRequest(name="none"))
    assert code is grpc.StatusCode.NOT_FOUND
    request = pb.CudaSharedMemoryRegisterRequest(name="frames", raw_handle=bytes(64), device_id=0, byte_size=64)
    code, text = refused(stub.CudaSharedMemoryRegister, request)
    assert (code, "'frames' cannot be registered" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    for name in ("", "frames"):
        stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name=name), timeout=TIMEOUT_S)
