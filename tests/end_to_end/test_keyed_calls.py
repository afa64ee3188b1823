"""Calls with an idempotency key as clients make them: computed once, answered the same, each identity for itself."""

import base64
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnx_models
import pytest
from inference_messages import build_request, encode_request

from certs import ensure_certificates
from service.model_routing import Routing
from service.pb.open_inference_pb2 import ModelInferResponse
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.traffic import Traffic
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.deployment_rig import TwinDeployment, tls_options
from tests.end_to_end.metrics_page import read_samples
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 30.0
KEEPING = ("--idempotency-bytes", "1000000", "--metrics-port", "0")
METHOD = "/inference.GRPCInferenceService/ModelInfer"
ROWS = np.ones((1, 4), np.float32)
KEY = ("idempotency-key", "order-1")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model that gives other numbers at each run, one that gives back what it gets, and one that is slow."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in (("dice", onnx_models.dice()), ("same", onnx_models.identity()), ("slow", onnx_models.slow())):
        onnx_models.save(model, folder, name, config="max_batch_size: 8")
    return folder


@pytest.fixture(scope="module")
def server(transport, models):
    """A server that keeps answers."""
    with ServerProcess(models, "--insecure", *KEEPING) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    """A channel to it."""
    with Target(server.address).connect() as channel:
        yield channel


def ask(channel, message, *metadata):
    """The raw reply, and the trailers by name."""
    # The target's handshakes have 50 ms, which a busy machine may not keep to.
    options = {"timeout": TIMEOUT_S, "wait_for_ready": True}
    reply, call = channel.unary_unary(METHOD).with_call(message, metadata=metadata, **options)
    return reply, dict(call.trailing_metadata())


def refusal(channel, message, *metadata):
    """Status and text of a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        ask(channel, message, *metadata)
    return raised.value.code(), raised.value.details()


def throw(**options):
    """A request whose answer is another one at each run."""
    return encode_request("dice", {"input": ROWS}, **options)


def test_repeated_call_gets_the_first_ones_answer(channel):
    """Byte by byte, and says so; without the key, or with another, it is computed anew."""
    first, trailers = ask(channel, throw(), KEY)
    assert "sluice-idempotent" not in trailers
    again, trailers = ask(channel, throw(), KEY)
    assert again == first
    assert trailers["sluice-idempotent"] == "replayed"
    assert len({first, ask(channel, throw())[0], ask(channel, throw(), ("idempotency-key", "order-2"))[0]}) == 3
    code, text = refusal(channel, throw(request_id="other"), KEY)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "another message" in text


@pytest.mark.parametrize("keys", [("",), ("x" * 256,), ("a b",), ("a", "b")])
def test_key_that_is_none_is_an_invalid_argument(channel, keys):
    """Empty, too long, with a blank, or two of them."""
    code, text = refusal(channel, throw(), *(("idempotency-key", key) for key in keys))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "1 to 255 visible ASCII" in text


def test_stream_takes_no_key(channel):
    """It has many requests, and a key is for one."""
    stub = GRPCInferenceServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        list(
            stub.ModelStreamInfer(
                iter([build_request("dice", {"input": ROWS})]), metadata=(KEY,), timeout=TIMEOUT_S, wait_for_ready=True
            )
        )
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "a stream has many requests" in raised.value.details()


def test_server_that_keeps_no_answers_says_so(models, transport):
    """As it is by default: nobody is to believe that a retry is safe."""
    with ServerProcess(models) as server, Target(server.address).connect() as channel:
        code, text = refusal(channel, throw(), KEY)
        assert ask(channel, throw())[0]
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "idempotency_bytes" in text


def test_call_that_is_given_up_is_found_again(channel):
    """Its run goes on, and whoever repeats it gets the answer of that."""
    message = encode_request("slow", {"input": ROWS})
    key = ("idempotency-key", "given-up")
    began = channel.unary_unary(METHOD).future(message, metadata=(key,), timeout=TIMEOUT_S, wait_for_ready=True)
    joined = [
        channel.unary_unary(METHOD).future(message, metadata=(key,), timeout=TIMEOUT_S, wait_for_ready=True)
        for _ in range(3)
    ]
    began.cancel()
    assert len({one.result() for one in joined}) == 1
    assert ask(channel, message, key) == (joined[0].result(), {"sluice-idempotent": "replayed"})


def test_tritons_client_sends_keys(server):
    """By the headers of its calls."""
    run_checks("keyed_checks.py", ADDRESS=server.address)


def test_asyncio_client_joins_its_own_calls(server, clients):
    """Many at a time under one key."""

    async def ask_together():
        async with Target(server.address).connect_async() as channel:
            method = channel.unary_unary(METHOD)
            calls = [
                method(throw(), metadata=(("idempotency-key", "aio"),), timeout=TIMEOUT_S, wait_for_ready=True)
                for _ in range(32)
            ]
            return {await call for call in calls}

    assert len(clients.run(ask_together())) == 1


def test_storm_of_keyed_calls_gives_each_caller_its_own(server, channel):
    """Repetitions, conflicts, failures, deadlines, cancellations at random: rows of one's own, or a fitting status."""

    def call(turn):
        chance = random.Random(turn)
        name, model = chance.randrange(150), chance.choice(["same"] * 9 + ["nobody"])
        value = name if chance.random() < 0.9 else name + 1000
        rows = np.full((1, 4), value, np.float32)
        timeout_s = chance.choice([0.001, TIMEOUT_S, TIMEOUT_S])
        message = encode_request(model, {"input": rows})
        future = channel.unary_unary(METHOD).future(
            message, metadata=(("idempotency-key", f"storm-{name}"),), timeout=timeout_s, wait_for_ready=True
        )
        if chance.random() < 0.1:
            future.cancel()
        try:
            return rows.tobytes() in future.result()
        except grpc.FutureCancelledError:
            return True
        except grpc.RpcError as error:
            expected = {grpc.StatusCode.DEADLINE_EXCEEDED} if timeout_s < 1 else set()
            expected |= {grpc.StatusCode.NOT_FOUND} if model == "nobody" else set()
            return error.code() in expected | {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED}

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(1500)))
    # What was cancelled may still be on its way.
    ask(channel, throw(), ("idempotency-key", "last"))
    samples = read_samples(server.await_event("ready")["metrics"])
    assert samples["sluice_idempotency_replays_total"] > 100
    assert samples["sluice_idempotency_conflicts_total"] > 10
    assert samples["sluice_idempotency_evictions_total"] == 0
    assert 0 < samples["sluice_idempotency_bytes"] <= 1_000_000


# ---- identities


def encode_claims(**claims):
    """As the gateway hands a verified token on."""
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def secured(transport, models, certificates):
    """A server that takes the internal authority's clients."""
    with ServerProcess(models, *tls_options(certificates), *KEEPING) as server:
        yield server


@pytest.fixture(scope="module")
def neighbour(certificates, tmp_path_factory):
    """Another client's certificate by the internal authority."""
    folder = tmp_path_factory.mktemp("neighbour")
    for suffix in ("pem", "key"):
        shutil.copy(certificates / f"internal-ca.{suffix}", folder / f"gateway-ca.{suffix}")
    ensure_certificates(folder)
    return folder


def test_identities_do_not_meet_each_others_answers(secured, certificates, neighbour):
    """Another certificate, another name that the gateway asserts, another subject: the same key is another one.

    Whoever claims to forward for somebody without being the gateway gets nothing of that either.
    """
    alice = ("x-forwarded-client-cert", "By=spiffe://g;Hash=aa;URI=spiffe://example.org/alice")
    renewed = ("x-forwarded-client-cert", "By=spiffe://g;Hash=bb;URI=spiffe://example.org/alice")
    bob = ("x-forwarded-client-cert", "By=spiffe://g;Hash=aa;URI=spiffe://example.org/bob")
    carol, late_carol, dave = (
        ("sluice-token", encode_claims(iss="https://issuer", sub=name, exp=exp))
        for name, exp in (("carol", 1), ("carol", 2), ("dave", 1))
    )
    gateway = Target.of_folder(secured.address, certificates, "internal-ca", "gateway-upstream")
    other = Target(
        secured.address, certificates / "internal-ca.pem", neighbour / "client.pem", neighbour / "client.key"
    )
    with gateway.connect() as by_gateway, other.connect() as directly:
        answers = [
            ask(channel, throw(), KEY, *who)[0]
            for channel, who in [
                (by_gateway, ()),
                (by_gateway, (alice,)),
                (by_gateway, (bob,)),
                (by_gateway, (alice, carol)),
                (by_gateway, (alice, dave)),
                (directly, ()),
                (directly, (alice,)),
            ]
        ]
        assert len(set(answers)) == len(answers)
        assert ask(by_gateway, throw(), KEY, renewed)[0] == answers[1]
        assert ask(by_gateway, throw(), KEY, late_carol, alice)[0] == answers[3]


# ---- through a gateway


@pytest.fixture(scope="module")
def keyed_twins(transport, tmp_path_factory):
    """A gateway before two servers that keep answers; two versions of a model have half of its calls each."""
    folder = tmp_path_factory.mktemp("keyed")
    for version in (1, 2):
        onnx_models.save(
            onnx_models.dice(), folder / "models", "dice", version, "max_batch_size: 8 version_policy {all {}}"
        )
    with TwinDeployment(
        folder / "models",
        folder,
        weights={"dice": {1: 50, 2: 50}},
        routing={"dice": Routing(idempotency=True)},
        options=KEEPING,
    ) as twins:
        yield twins


def test_repeated_call_through_a_gateway_gets_the_first_ones_answer(keyed_twins):
    """Whichever version and server computed it, and wherever the weights send such calls by then."""
    keys = [("idempotency-key", f"gateway-{number}") for number in range(40)]
    traffic = Traffic(keyed_twins.rig.deployment, keyed_twins.rig.operator)
    with keyed_twins.target.connect() as channel:
        first = {key: ask(channel, throw(), key)[0] for key in keys}
        again = {key: ask(channel, throw(), key) for key in keys}
        traffic.shift("dice", {1: 100, 2: 0})
        try:
            moved = {key: ask(channel, throw(), key) for key in keys}
        finally:
            traffic.shift("dice", {1: 50, 2: 50})
    assert len(set(first.values())) == len(keys)
    versions = {ModelInferResponse.FromString(reply).model_version for reply in first.values()}
    assert versions == {"1", "2"}
    for answers in (again, moved):
        assert {key: reply for key, (reply, _) in answers.items()} == first
        assert all(trailers["sluice-idempotent"] == "replayed" for _, trailers in answers.values())
    pages = [read_samples(backend.await_event("ready")["metrics"]) for backend in keyed_twins.backends]
    runs = [page["sluice_idempotency_runs_total"] for page in pages]
    assert min(runs) > 0
    assert sum(runs) == len(keys)


def test_another_clients_replay_through_a_gateway_is_computed_anew(keyed_twins):
    """The gateway says whose certificate it has seen, whatever a client says of itself."""
    owner = "By=spiffe://sluice.local/gateway;URI=spiffe://sluice.local/client/demo"
    key = ("idempotency-key", "owned")
    thief = Target.of_folder(keyed_twins.target.address, keyed_twins.certificates, "gateway-ca", "operator")
    with keyed_twins.target.connect() as channel, thief.connect() as others:
        first, _ = ask(channel, throw(), key)
        stolen, trailers = ask(others, throw(), key, ("x-forwarded-client-cert", owner))
        assert stolen != first
        assert "sluice-idempotent" not in trailers
        assert ask(channel, throw(), key, ("x-forwarded-client-cert", "URI=spiffe://example.org/a"))[0] == first
