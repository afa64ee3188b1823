"""What the tests of the engine share: an engine, and models loaded into it from files that are made on the spot."""

import onnx_models
import pytest

from kernels.engine import Engine
from kernels.session import Session
from tests.authorities import Authority
from tests.kernels.raw_handlers import Gate
from tests.kernels.raw_service import RawService
from tests.kernels.sequence_calls import SequenceLoader
from tests.kernels.tls_service import TlsService
from tests.kernels.ways import WORKERS


@pytest.fixture
def engine():
    """An engine that is closed after the test; closing waits for everything that was admitted."""
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def way(request):
    """The way in which models run: on the engine's workers, unless a test is marked with others."""
    return getattr(request, "param", WORKERS)


@pytest.fixture
def load(engine, tmp_path, way):
    """Load a model into the engine: load(model, "name", version=1, **options of Engine.load)."""

    def load_model(model, name="tiny", version=1, *, instance_count=1, **options):
        path = onnx_models.save(model, tmp_path, name, version)
        if way.buffer_sets == 0:
            engine.load(name, version, Session(path), instance_count=instance_count, **options)
            return
        sessions = [Session(path, device=way.device) for _ in range(max(way.sessions, instance_count))]
        engine.load(name, version, sessions, buffer_sets=way.buffer_sets, **options)

    return load_model


@pytest.fixture
def loader(engine, tmp_path, way):
    """Loads models that keep sequences into the engine."""
    return SequenceLoader(engine, tmp_path, way)


@pytest.fixture
def serve():
    """Start servers of raw methods: serve({"Method": handler}, **options of Server) gives a RawService."""
    started = []

    def start(handlers, **options):
        started.append(RawService(handlers, **options))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture
def gate():
    """A gate that no handler waits for after the test."""
    made = Gate()
    yield made
    made.opened.set()


@pytest.fixture(scope="session")
def authority():
    """An authority whose clients are trusted."""
    return Authority("authority")


@pytest.fixture(scope="session")
def member(authority):
    """A client's certificate, of the authority."""
    return authority.issue("URI:spiffe://test/member")


@pytest.fixture
def serve_tls(authority):
    """Start servers with TLS: serve_tls(**settings of TlsSettings) gives a TlsService."""
    started = []

    def start(*arguments, **options):
        started.append(TlsService(authority, *arguments, **options))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture
def guarded(serve_tls, authority):
    """A server that takes clients of the authority only."""
    return serve_tls(client_ca=authority.pem)
