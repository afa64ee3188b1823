"""Tokens of a real OAuth 2.0 server, got by the client-credentials flow, at a real gateway that fetches its keys."""

import asyncio
import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from service.access_policy import AccessPolicy, Grant, Issuer, RemoteKeys, Role, TokenCondition
from service.client_tokens import TokenEndpoint, TokenError, TokenSource
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import Authority
from tests.free_ports import HOST, find_free_port
from tests.oidc_server import AUDIENCE, CLIENT_ID, CLIENT_SECRET, RESOURCE, SCOPE, OidcServer
from tests.service.access_rig import ANN, NOBODY, start_access_rig
from tests.service.gateway_rig import PREFIX

LIFETIME_S = 4
CALL_TIMEOUT_S = 60
MESSAGE = pb.ModelInferRequest(model_name="digits").SerializeToString()
DOWN, STRANGER = "https://down.example.org/", "https://stranger.example.org/"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The OAuth server."""
    with OidcServer(tmp_path_factory.mktemp("oidc"), LIFETIME_S) as server:
        yield server


@pytest.fixture(scope="module")
def access(server, tmp_path_factory):
    """A gateway that believes that server, one that nobody can reach, and one that nobody vouches for."""
    folder = tmp_path_factory.mktemp("oauth")
    (folder / "another-ca.pem").write_bytes(Authority("another").pem)
    keys = {
        "login": (server.issuer, RemoteKeys(f"{server.issuer}/jwks", server.authority, 1)),
        "down": (DOWN, RemoteKeys(f"https://{HOST}:{find_free_port()}/jwks", server.authority, 1)),
        "stranger": (STRANGER, RemoteKeys(f"{server.issuer}/jwks", folder / "another-ca.pem", 1)),
    }
    issuers = {
        name: Issuer(issuer=issuer, audiences=(AUDIENCE,), keys=remote, clock_skew_s=1)
        for name, (issuer, remote) in keys.items()
    }
    grants = (
        Grant("caller", token=TokenCondition("login", {("scope",): (SCOPE,), ("client_id",): (CLIENT_ID,)})),
        Grant("caller", (ANN,)),
    )
    roles = {"caller": Role(("digits",), ("infer",))}
    with start_access_rig(folder, lambda *_: AccessPolicy(issuers=issuers, roles=roles, grants=grants)) as access:
        yield access


def make_source(server, **options):
    """A source of tokens of that server."""
    given = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scope": SCOPE, "resource": RESOURCE}
    return TokenSource(
        TokenEndpoint(**{"uri": f"{server.issuer}/token", "authority": server.authority, **given, **options})
    )


def make_credentials(access, source):
    """What a channel is made with: TLS with a certificate that alone opens nothing, and tokens."""
    access.connect(NOBODY)
    folder = access.rig.certificates
    ca, key, chain = ((folder / name).read_bytes() for name in ("gateway-ca.pem", "nobody.key", "nobody.pem"))
    return grpc.composite_channel_credentials(grpc.ssl_channel_credentials(ca, key, chain), source.call_credentials())


@pytest.fixture
def address(access):
    """Where the gateway is."""
    return str(access.rig.deployment.gateway)


def list_claims(access):
    """The claims that servers were told, call by call."""
    seen = [metadata for backend in access.rig.backends.values() for _, metadata, _ in backend.calls]
    tokens = [metadata["sluice-token"] for metadata in seen if "sluice-token" in metadata]
    return [json.loads(base64.urlsafe_b64decode(token + "==")) for token in tokens]


def test_calls_go_on_over_many_tokens_lives(access, server, address):
    """Threads share a source; each token is renewed before it ends, and no call fails."""
    with grpc.secure_channel(address, make_credentials(access, make_source(server))) as channel:
        method = channel.unary_unary(PREFIX + "ModelInfer")

        def run(until):
            while time.monotonic() < until:
                method(MESSAGE, timeout=CALL_TIMEOUT_S)

        with ThreadPoolExecutor(3) as pool:
            until = time.monotonic() + 2 * LIFETIME_S
            for future in [pool.submit(run, until) for _ in range(3)]:
                future.result()
    claims = list_claims(access)
    assert {(each["sub"], each["tenant"], each["scope"]) for each in claims} == {(CLIENT_ID, "acme", SCOPE)}
    assert 2 <= len({each["jti"] for each in claims}) <= 12


def test_generated_stub_sends_tokens(access, server, address):
    """Without a word of tokens where it is called; what its role does not allow tells whose token it was."""
    with grpc.secure_channel(address, make_credentials(access, make_source(server))) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelMetadata(pb.ModelMetadataRequest(name="digits"), timeout=CALL_TIMEOUT_S)
    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert f"subject {CLIENT_ID}" in raised.value.details()


def test_asyncio_client_sends_tokens(access, server, address):
    """By the same source."""

    async def call_all():
        async with grpc.aio.secure_channel(address, make_credentials(access, make_source(server))) as channel:
            method = channel.unary_unary(PREFIX + "ModelInfer")
            return await asyncio.gather(*(method(MESSAGE, timeout=CALL_TIMEOUT_S) for _ in range(50)))

    assert len(asyncio.run(call_all())) == 50


def test_new_key_is_taken_without_a_word(access, server):
    """The gateway fetches the keys again in the time that the policy says; tokens of the old one end by themselves."""
    old = make_source(server).get()
    assert access.infer(old)[0] == grpc.StatusCode.OK
    server.change_key("second")
    until = time.monotonic() + 30
    while (answer := access.infer(make_source(server).get()))[0] != grpc.StatusCode.OK:
        assert answer[0] == grpc.StatusCode.UNAUTHENTICATED
        assert time.monotonic() < until, answer
        time.sleep(0.1)
    while access.infer(old)[0] == grpc.StatusCode.OK:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert access.infer(old)[0] == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("issuer", [DOWN, STRANGER])
def test_issuer_whose_keys_cannot_be_fetched_is_unavailable_and_keeps_nobody_else_out(access, server, issuer):
    """It may be tried again; who needs no token of it does not notice."""
    status, text = access.infer(access.sign({"iss": issuer, "aud": AUDIENCE}, access.login))
    assert (status, "keys" in text) == (grpc.StatusCode.UNAVAILABLE, True), text
    assert access.infer(make_source(server).get())[0] == grpc.StatusCode.OK
    assert access.infer(uri=ANN)[0] == grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"client_secret": "wrong"}, "status 401: invalid_client: client authentication failed"),
        ({"client_id": "another"}, "status 401: invalid_client: client authentication failed"),
        ({"authority": None}, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_client_that_gets_no_token_is_told_why(access, server, address, options, words):
    """As the status of its calls, and without its secret."""
    source = make_source(server, **options)
    with pytest.raises(TokenError, match=words) as refusal:
        source.get()
    assert options.get("client_secret", CLIENT_SECRET) not in str(refusal.value)
    with grpc.secure_channel(address, make_credentials(access, source)) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(PREFIX + "ModelInfer")(MESSAGE, timeout=CALL_TIMEOUT_S)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        assert words in raised.value.details()


def test_token_without_the_scope_is_of_no_role(access, server):
    """The issuer may give fewer scopes than are asked for."""
    status, text = access.infer(make_source(server, scope="").get())
    assert status == grpc.StatusCode.PERMISSION_DENIED
    assert f"subject {CLIENT_ID}" in text


def test_token_without_the_resource_is_not_for_this_gateway(access, server):
    """The server then gives one that is no JWT."""
    status, text = access.infer(make_source(server, resource="").get())
    assert status == grpc.StatusCode.UNAUTHENTICATED
    assert "not in the form" in text
