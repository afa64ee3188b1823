"""What the end-to-end tests share: the transports, a repository, servers of it, and the ways to them."""

import pytest

from certs import ensure_certificates
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.deployment_rig import TwinDeployment, tls_options
from tests.end_to_end.load import LoopThread
from tests.end_to_end.models import write_repository
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

# Every test runs on each: its name, and the settings by which a server takes it, as variables of the environment, so
# that they reach a server whoever starts it.
TRANSPORTS = {name: {"SLUICE_TRANSPORT": name} for name in ("grpcio", "native")}
# Above grpcio's own default of 4 MiB, and small enough to go over in a test.
MAX_MESSAGE_BYTES = 8 * 2**20


@pytest.fixture(scope="session", params=TRANSPORTS, autouse=True)
def transport(request):
    """The transport of every server that is started meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TRANSPORTS[request.param].items():
            patch.setenv(name, value)
        yield request.param


@pytest.fixture(scope="session")
def clients():
    """The loop of all asyncio clients."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """Models of which none is broken."""
    return write_repository(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A deployment's certificates."""
    folder = tmp_path_factory.mktemp("certs")
    ensure_certificates(folder)
    return folder


@pytest.fixture(scope="session")
def plain_server(transport, repository):
    """A server without TLS."""
    with ServerProcess(repository, "--insecure", "--max-message-bytes", MAX_MESSAGE_BYTES) as server:
        yield server


@pytest.fixture(scope="session")
def plain(plain_server):
    """The way to it."""
    return Target(plain_server.address)


@pytest.fixture(scope="session")
def mtls(transport, repository, certificates):
    """The way to a server that takes every client of the internal authority."""
    options = tls_options(certificates)
    with ServerProcess(repository, *options, "--max-message-bytes", MAX_MESSAGE_BYTES) as server:
        yield Target.of_folder(server.address, certificates, "internal-ca", "gateway-upstream")


@pytest.fixture(scope="session")
def twins(transport, repository, tmp_path_factory):
    """A gateway before two servers, for tests that leave all as it was; `adder` is split evenly."""
    folder = tmp_path_factory.mktemp("twins")
    split = {"adder": {1: 50, 2: 50}}
    with TwinDeployment(repository, folder, weights=split, max_message_bytes=MAX_MESSAGE_BYTES) as twins:
        yield twins


@pytest.fixture(scope="session")
def gateway(twins):
    """The way to the gateway, as a client."""
    return twins.target


@pytest.fixture(scope="session", params=["plain", "mtls", "gateway"])
def target(transport, request):
    """Every way to a server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def stub(target):
    """Stubs on a connection of the test's own."""
    with target.connect() as channel:
        yield GRPCInferenceServiceStub(channel)
