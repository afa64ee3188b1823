"""Limits that are counted for several gateways: real Envoys, real limit services, a real Redis."""

import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from gateway_rig import Backend, infer, run_load, start_rig
from limit_calls import Crowd, count_let_through, find_refusal, read_retry_s

from certs import ensure_certificates
from service.deployment import Endpoint, Version
from service.deployment_file import format_deployment
from service.limits import GLOBAL, REFUSE, Limits, LimitService, RateLimit
from service.running_gateway import RunningGateway
from tests.authorities import Authority
from tests.free_ports import HOST, find_free_port
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis

TIMEOUT_S = 60.0
HOUR = {"per": "hour", "requests": 1, "scope": GLOBAL}
RATES = (
    RateLimit(name="subjects", by=("subject",), burst=5, models=("counted",), **HOUR),
    RateLimit(name="quick", requests=300, per="minute", burst=1, models=("quick",), scope=GLOBAL),
    RateLimit(name="models", by=("model",), burst=2, models=("both",), **HOUR),
    RateLimit(
        name="before", by=("subject",), burst=1, models=("both",), certificates=("spiffe://example.org/one",), **HOUR
    ),
    RateLimit(name="ample", requests=1_000_000, per="second", burst=1_000_000, models=("loaded",), scope=GLOBAL),
    RateLimit(name="again", by=("subject", "model"), burst=4, models=("again",), **HOUR),
)
MODELS = ("counted", "quick", "both", "again", "loaded", "free")


class LimitServer:
    """`sluice limits serve` as a process."""

    def __init__(self, file, listen, *options):
        self._command = [sys.executable, "-c", "from service.cli import main; main()", "limits", "serve", str(file)]
        self._command += ["--listen", str(listen), *options]
        self.start()

    def start(self):
        """Start it, and return when it is ready."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline().startswith("limits    ")

    def kill(self):
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with certificates, and a crowd of clients by name."""
    folder = tmp_path_factory.mktemp("shared")
    certificates = folder / "certs"
    ensure_certificates(certificates)
    inside = Authority("inside")
    trusted = certificates / "internal-ca.pem"
    trusted.write_bytes(trusted.read_bytes() + inside.pem)
    nobody = inside.issue("URI:spiffe://example.org/nobody")
    (certificates / "nobody.pem").write_bytes(nobody.chain)
    (certificates / "nobody.key").write_bytes(nobody.key)
    return folder, Crowd(certificates)


@pytest.fixture(scope="module")
def redis():
    """A Redis server."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        server = RedisServer(Path(folder))
        yield server
        server.kill()


@contextlib.contextmanager
def run_gateway(folder, backend, limits):
    """A gateway of its own for a backend's models."""
    models = {model: {1: Version(1, (backend.endpoint,))} for model in MODELS}
    with start_rig(folder, backends={1: [backend], 2: [backend]}, models=models, limits=limits) as rig:
        yield rig


@pytest.fixture(scope="module")
def rigs(place, redis):
    """Two gateways, each with a limit service of its own, which share a Redis."""
    folder, _ = place
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("one", "two"):
            own = folder / name
            own.mkdir()
            (own / "certs").symlink_to(folder / "certs")
            backend = Backend(name, folder / "certs", [f"{model}/1" for model in MODELS])
            service = LimitService(endpoints=(Endpoint(HOST, find_free_port()),), timeout_ms=5000)
            rig = stack.enter_context(run_gateway(own, backend, Limits(rates=RATES, service=service)))
            file = own / "deployment.yaml"
            file.write_text(format_deployment(rig.deployment))
            rig.metrics_port = find_free_port()
            rig.limits = LimitServer(
                file, service.endpoints[0], "--redis", redis.url, "--metrics-port", str(rig.metrics_port)
            )
            stack.callback(rig.limits.kill)
            await_healthy(rig, 1)
            made.append(rig)
        yield made


@pytest.fixture(scope="module")
def connect(place):
    """Opens a channel to a gateway for the client of a name."""
    return lambda rig, name: place[1].connect(rig.deployment.gateway, name)


def await_healthy(rig, count):
    """Return when the gateway finds so many limit services healthy."""
    deadline = time.monotonic() + TIMEOUT_S
    while RunningGateway(rig.admin).count_healthy(["limits"]).get("limits") != count:
        assert time.monotonic() < deadline, rig.child.read_log_tail()
        time.sleep(0.02)


def read_stat(rig, model, name):
    """One of the statistics of the filter, for a model."""
    stat = f"cluster.{model}@1.ratelimit.{name}"
    return RunningGateway(rig.admin).read_numbers([stat]).get(stat, 0)


def ask(model):
    """A call of a model."""
    return lambda channel: infer(channel, model)


def test_two_gateways_share_one_limit(rigs, connect):
    """What a subject has spent at one is spent at the other; nobody spends another's, and other models are free."""
    one, two = rigs
    with connect(one, "ann") as at_one, connect(two, "ann") as at_two, connect(two, "ben") as ben:
        assert count_let_through(at_one, 3, ask("counted")) == 3
        assert count_let_through(at_two, 8, ask("counted")) == 2
        assert count_let_through(at_one, 2, ask("counted")) == 0
        assert count_let_through(ben, 8, ask("counted")) == 5
        assert count_let_through(at_one, 8, ask("free")) == 8
    assert read_stat(one, "counted", "over_limit") == 2


def test_refusal_carries_the_true_delay(rigs, connect):
    """Who waits so long is let through; the text is the limit's."""
    with connect(rigs[0], "ann") as ann:
        while (error := find_refusal(ann, ask("quick"))) is None:
            pass
        assert error.details().startswith("limit 'quick': expected at most 300 requests a minute, 1 at once;")
        assert 0 < read_retry_s(error) <= 0.2
        time.sleep(read_retry_s(error))
        assert find_refusal(ann, ask("quick")) is None


def test_call_that_one_limit_refuses_costs_nothing_of_another(rigs, connect):
    """The subject's is used up first; what is left for the model is there for somebody else."""
    with connect(rigs[0], "one") as one, connect(rigs[1], "two") as two:
        assert count_let_through(one, 6, ask("both")) == 1
        assert count_let_through(two, 3, ask("both")) == 1


def test_refusals_are_counted_by_limit(rigs, connect):
    """At the service, for Prometheus."""
    with connect(rigs[0], "fay") as fay:
        assert count_let_through(fay, 6, ask("counted")) == 5
    with urllib.request.urlopen(f"http://{HOST}:{rigs[0].metrics_port}/metrics") as answer:
        text = answer.read().decode()
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(counts['sluice_limit_calls_total{limit="subjects",verdict="let_through"}']) >= 5
    assert int(counts['sluice_limit_calls_total{limit="subjects",verdict="refused"}']) >= 1


def test_calls_go_on_while_redis_dies_hangs_and_comes_back(rigs, redis, connect):
    """No call fails under load; those that were not counted are, in the statistics; then limits hold again."""
    rig = rigs[0]
    with (
        connect(rig, "load") as channel,
        connect(rig, "gus") as gus,
        run_load(lambda: infer(channel, "loaded"), 2) as load,
    ):
        assert count_let_through(gus, 6, ask("again")) == 4
        load.wait_for_more(20)
        redis.kill()
        await_healthy(rig, 0)
        assert count_let_through(gus, 6, ask("again")) == 6
        load.wait_for_more(20)
        redis.start()
        await_healthy(rig, 1)
        assert count_let_through(gus, 6, ask("again")) == 4
        redis.hang()
        await_healthy(rig, 0)
        assert count_let_through(gus, 3, ask("again")) == 3
        redis.resume()
        await_healthy(rig, 1)
        assert count_let_through(gus, 3, ask("again")) == 0
        load.wait_for_more(20)
    assert load.failures == []
    assert read_stat(rig, "loaded", "ok") > 0
    assert read_stat(rig, "loaded", "failure_mode_allowed") > 0


def test_calls_go_on_while_the_limit_service_dies(rigs, connect):
    """And the count is where it was when it is back: it is Redis that counts."""
    rig = rigs[0]
    with connect(rig, "hal") as hal:
        assert count_let_through(hal, 4, ask("again")) == 4
        rig.limits.kill()
        await_healthy(rig, 0)
        assert count_let_through(hal, 2, ask("again")) == 2
        rig.limits.start()
        await_healthy(rig, 1)
        assert count_let_through(hal, 2, ask("again")) == 0


def test_limits_follow_the_file(rigs, connect):
    """A file that cannot be read changes nothing."""
    rig = rigs[1]
    file = rig.state_folder / "deployment.yaml"
    text = file.read_text()
    with connect(rig, "ida") as ida:
        file.write_text("limits: [")
        assert count_let_through(ida, 8, ask("counted")) == 5
        assert text.count("burst: 5") == 1
        file.write_text(text.replace("burst: 5", "burst: 7"))
        deadline = time.monotonic() + TIMEOUT_S
        while (let_through := count_let_through(ida, 1, ask("counted"))) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert let_through + count_let_through(ida, 3, ask("counted")) == 2
        file.write_text(text)


def test_calls_are_refused_without_the_limit_service_where_that_is_declared(place, rigs):
    """Here it is there, and proves another name than the one that is expected of it."""
    folder, crowd = place
    own = folder / "refusing"
    own.mkdir()
    (own / "certs").symlink_to(folder / "certs")
    [endpoint] = rigs[0].deployment.limits.service.endpoints
    service = LimitService(endpoints=(endpoint,), on_failure=REFUSE, identity="spiffe://example.org/other")
    backend = Backend("refusing", folder / "certs", [f"{model}/1" for model in MODELS])
    with (
        run_gateway(own, backend, Limits(rates=RATES, service=service)) as rig,
        crowd.connect(rig.deployment.gateway, "ann") as ann,
    ):
        with pytest.raises(grpc.RpcError, match="the service that counts calls does not answer") as refusal:
            infer(ann, "counted")
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert infer(ann, "free") == "refusing:1"


def ask_service(rig, folder, name, descriptors=()):
    """Ask a limit service directly, with the certificate of a name."""
    files = [(folder / file).read_bytes() for file in ("internal-ca.pem", f"{name}.key", f"{name}.pem")]
    [endpoint] = rig.deployment.limits.service.endpoints
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(str(endpoint), grpc.ssl_channel_credentials(*files), options) as channel:
        request = rls_pb2.RateLimitRequest(domain="sluice")
        for entries in descriptors:
            pairs = [{"key": key, "value": value} for key, value in entries]
            request.descriptors.add(entries=pairs)
        return rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(request, timeout=30)


@pytest.mark.parametrize(
    ("name", "code"),
    [("client", grpc.StatusCode.UNAVAILABLE), ("nobody", grpc.StatusCode.PERMISSION_DENIED)],
)
def test_limit_service_answers_gateways_alone(rigs, place, name, code):
    """A client's certificate fails in the handshake; one of the inside that is no gateway's is turned away."""
    with pytest.raises(grpc.RpcError) as refusal:
        ask_service(rigs[0], place[0] / "certs", name)
    assert refusal.value.code() is code


def test_limit_service_takes_what_a_gateway_should_not_say(rigs, place):
    """Limits that it does not know let pass; one that is asked for twice is taken from once; names may be long."""
    subject = [("limit", "subjects"), ("subject", "x" * 100_000)]
    strange = [[], [("limit", "none")], [("limit", "subjects")], [("subject", "a"), ("limit", "subjects")]]

    def send(descriptors):
        return ask_service(rigs[0], place[0] / "certs", "gateway-upstream", descriptors)

    answer = send([*strange, subject, subject])
    assert answer.overall_code == rls_pb2.RateLimitResponse.OK
    codes = [send([subject]).overall_code for _ in range(5)]
    assert codes == [rls_pb2.RateLimitResponse.OK] * 4 + [rls_pb2.RateLimitResponse.OVER_LIMIT]
    with pytest.raises(grpc.RpcError, match="expected at most 256, given 257") as refusal:
        send([[]] * 257)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
