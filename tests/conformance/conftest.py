"""What the tests of conformance share: every kind of server, its certificates, and the interoperability service."""

import asyncio
from contextlib import ExitStack

import pytest

from certs import ensure_certificates
from tests.conformance.interop_service import add_interop_service
from tests.conformance.probe import Probe
from tests.conformance.running_server import running_server
from tests.conformance.servers import SERVERS, Identity
from tests.end_to_end.targets import Target


@pytest.fixture(scope="session", params=SERVERS)
def kind(request):
    """Every kind of server."""
    return SERVERS[request.param]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder of certificates: the server is `service`, its clients are of the authority `internal-ca`."""
    folder = tmp_path_factory.mktemp("certs")
    ensure_certificates(folder)
    return folder


@pytest.fixture(scope="session")
def identity(certificates):
    """The server's identity, which takes clients without certificates."""
    return Identity((certificates / "service.pem").read_bytes(), (certificates / "service.key").read_bytes())


@pytest.fixture(scope="session")
def loop():
    """The loop of all asyncio clients; `loop.run` runs a coroutine in it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def native(kind):
    """Only for servers that need not copy what grpcio's does wrong."""
    if kind is SERVERS["grpcio"]:
        pytest.skip("grpcio's own server fails this")


@pytest.fixture(scope="session", params=["plain", "tls"])
def interop_target(request, kind):
    """The way to a server of the interoperability service, in plain text and with TLS."""
    identity = request.getfixturevalue("identity") if request.param == "tls" else None
    with running_server(kind, add_interop_service, identity=identity) as (_, address):
        authority = identity and request.getfixturevalue("certificates") / "internal-ca.pem"
        yield Target(address, authority)


@pytest.fixture
def open_probe(kind):
    """Opens a Probe on every kind of server; it is closed at the test's end."""
    with ExitStack() as stack:
        yield lambda shape, behaviour, **options: stack.enter_context(Probe(kind, shape, behaviour, **options))


@pytest.fixture
def serve(open_probe):
    """Serves a behaviour in one of the four shapes; returns the method as a client calls it."""
    return lambda shape, behaviour, **options: open_probe(shape, behaviour, **options).connect()
