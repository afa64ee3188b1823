"""A real Envoy between real gRPC clients and servers, for the tests of the gateway."""

import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from certs import ensure_certificates
from service.admin import AdminSocket, OperatorListener
from service.cli import app
from service.daemons import GatewayDaemon
from service.deployment import Deployment, Endpoint, Version
from service.gateway import ADMIN_SOCKET, VERSION_HEADER
from service.gateway_install import install
from service.pb import open_inference_pb2 as pb
from service.plan import Plan
from tests.free_ports import HOST, find_free_port

PREFIX = "/inference.GRPCInferenceService/"
MAX_MESSAGE_BYTES = 16 * 2**20
START_TIMEOUT_S = 60.0


class Backend(grpc.GenericRpcHandler):
    """A server behind the gateway that answers every call with its own name and the version it was told."""

    def __init__(self, name, certificates, serves=("digits/1", "digits/2"), port=0):
        self.name = name
        self.calls = []
        self.is_failing = False
        # Cleared, calls get no answer.
        self.is_answering = threading.Event()
        self.is_answering.set()
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            handlers=[self],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
                # As the service does: grpcio hangs up on who pings as often as the gateway.
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )
        servicer = health.HealthServicer()
        for service in ("", *serves):
            servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        key, certificate, authority = (
            (certificates / name).read_bytes() for name in ("service.key", "service.pem", "internal-ca.pem")
        )
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
        self.endpoint = Endpoint(HOST, self._server.add_secure_port(f"{HOST}:{port}", credentials))
        self._server.start()

    def service(self, details):
        """Handle what the health service does not."""
        if details.method.startswith("/grpc.health"):
            return None
        metadata = dict(details.invocation_metadata)
        if details.method.endswith("StreamInfer"):
            return grpc.stream_stream_rpc_method_handler(
                lambda requests, context: (self._answer(details.method, metadata, request) for request in requests)
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._fail(context) or self._answer(details.method, metadata, request)
        )

    def _fail(self, context):
        self.is_answering.wait()
        if self.is_failing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "failing")

    def _answer(self, method, metadata, request):
        self.calls.append((method.removeprefix(PREFIX), metadata, len(request)))
        return f"{self.name}:{metadata.get(VERSION_HEADER, '-')}".encode()

    def stop(self):
        """Break off everything and end."""
        self.is_answering.set()
        self._server.stop(None).wait()


class Rig:
    """A deployment with its own state folder, and clients of it."""

    def __init__(self, state_folder, deployment, start_timeout_s, drain_timeout_s=30.0):
        self._start_timeout_s = start_timeout_s
        self.state_folder = state_folder
        self.deployment = deployment
        self.certificates = deployment.certificates
        self.admin = AdminSocket(state_folder / ADMIN_SOCKET)
        self.operator = OperatorListener.of_state(deployment.operator, self.certificates)
        plan = Plan(
            model_repository=state_folder,
            state_folder=state_folder,
            gateway=deployment.gateway,
            operator=deployment.operator,
            drain_timeout_s=drain_timeout_s,
        )
        self._daemon = GatewayDaemon(plan)
        self.child = self.predecessor = None

    def start(self):
        """Install the configuration, start Envoy and return when it is ready."""
        (self.state_folder / "logs").mkdir(exist_ok=True)
        (self.state_folder / "run").mkdir(exist_ok=True)
        install(self.deployment, self.state_folder, self._daemon.executable)
        self.start_envoy()

    def start_envoy(self):
        """Start Envoy on the configuration in place and return when it is ready."""
        self.child = self._daemon.start()
        self._await(self._daemon.is_ready)

    def replace_envoy(self):
        """Put a new Envoy in the place of the one that runs, once none finishes any more what it had under way."""
        if self.predecessor is not None:
            self._await(lambda: self.predecessor.exit_code() is not None)
            self.predecessor.close()
        self.predecessor, self.child = self.child, self._daemon.start_successor()
        self._await(self._daemon.is_ready)
        self._daemon.settle_successor()

    def _await(self, is_so):
        deadline = time.monotonic() + self._start_timeout_s
        while not is_so():
            assert self.child.exit_code() is None, self.child.read_log_tail()
            assert time.monotonic() < deadline, self.child.read_log_tail()
            time.sleep(0.02)

    def stop(self):
        """End Envoy."""
        if self.child is not None:
            for child in filter(None, (self.predecessor, self.child)):
                child.stop(5.0)
            self._daemon.remove_memory()
            self.child = self.predecessor = None

    def connect(self, certificate="client", folder=None):
        """A channel to the gateway with a certificate by its name, or without one."""
        return open_channel(self.deployment.gateway, self.certificates, certificate, folder)

    @contextmanager
    def load(self, threads=2):
        """Inferences without pause while the block runs; yields the Load."""
        with self.connect() as channel, run_load(lambda: infer(channel), threads) as load:
            yield load


def open_channel(endpoint, certificates, certificate="client", folder=None, *, is_retrying=False):
    """A channel to a gateway, which `certificates` trusts, with a certificate by its name.

    With `is_retrying`, as is grpcio's default, the client sends again what the gateway says it has not looked at.
    """
    authority = (certificates / "gateway-ca.pem").read_bytes()
    folder = folder or certificates
    pair = [(folder / f"{certificate}.{suffix}").read_bytes() for suffix in ("key", "pem")] if certificate else []
    options = [
        ("grpc.enable_retries", int(is_retrying)),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
    return grpc.secure_channel(str(endpoint), grpc.ssl_channel_credentials(authority, *pair), options)


@contextmanager
def run_load(ask, threads=2):
    """Call `ask` without pause on some threads while the block runs; yields the Load."""
    load = Load(ask)
    workers = [threading.Thread(target=load.run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        load.is_over = True
        for worker in workers:
            worker.join()


class Load:
    """Answers and failures of calls that go on and on."""

    def __init__(self, ask):
        self._ask = ask
        self._changed = threading.Condition()
        self.is_over = False
        self.answers = Counter()
        self.failures = []

    def run(self):
        """Call until it is over."""
        while not self.is_over:
            try:
                answer = self._ask()
            except grpc.RpcError as error:
                self.failures.append((error.code(), error.details()))
                answer = None
            with self._changed:
                self.answers[answer] += 1
                self._changed.notify_all()

    def wait_for_more(self, count, timeout_s=30.0):
        """Return when `count` more calls have been answered, and the answers to those."""
        with self._changed:
            before = Counter(self.answers)
            target = before.total() + count
            assert self._changed.wait_for(lambda: self.answers.total() >= target, timeout_s), self.answers
            return self.answers - before


def call(channel, method, message, *, metadata=(), timeout_s=60.0, wait_for_ready=False):
    """Call one method with a message or raw bytes and return the raw answer as text."""
    request = message if isinstance(message, bytes) else message.SerializeToString()
    options = {"metadata": metadata, "timeout": timeout_s, "wait_for_ready": wait_for_ready}
    answer = channel.unary_unary(PREFIX + method)(request, **options)
    return answer.decode()


def infer(channel, model="digits", version="", **options):
    """Call ModelInfer for a model and a version."""
    return call(channel, "ModelInfer", pb.ModelInferRequest(model_name=model, model_version=version), **options)


@contextmanager
def start_rig(state_folder, *, weights=(90, 10), backends=None, start_timeout_s=START_TIMEOUT_S, **options):
    """A running gateway for the model `digits`, whose version 1 the backend a serves and version 2 the backend b."""
    certificates = state_folder / "certs"
    ensure_certificates(certificates)
    started = backends or {1: [Backend("a", certificates)], 2: [Backend("b", certificates)]}
    deployment = Deployment(
        certificates=certificates,
        **{
            "models": {
                "digits": {
                    number: Version(weight, tuple(backend.endpoint for backend in started[number]))
                    for number, weight in zip((1, 2), weights, strict=True)
                }
            },
            "gateway": Endpoint(HOST, find_free_port()),
            "operator": Endpoint(HOST, find_free_port()),
            "max_message_bytes": MAX_MESSAGE_BYTES,
            **options,
        },
    )
    rig = Rig(state_folder, deployment, start_timeout_s)
    rig.backends = {number: servers[0] for number, servers in started.items()}
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        for servers in started.values():
            for backend in servers:
                backend.stop()


def make_deployment(folder, host=HOST):
    """A deployment that nothing runs."""
    return Deployment(
        models={"digits": {1: Version(1, (Endpoint(host, 8001),))}},
        gateway=Endpoint(HOST, find_free_port()),
        operator=Endpoint(HOST, find_free_port()),
        certificates=folder / "certs",
    )


def run_traffic(rig, *arguments):
    """Run `sluice traffic` in this process on the rig's state folder."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return CliRunner().invoke(
            app, ["traffic", *arguments, "--state-dir", str(rig.state_folder)], env={"COLUMNS": "200"}
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
