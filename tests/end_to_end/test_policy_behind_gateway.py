"""A server's own policy behind the real Envoy, which here lets every call through: that gets nobody further."""

import base64
from datetime import UTC, datetime

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certs.identities import CLIENT_URI
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import HOUR, Authority
from tests.end_to_end.deployment_rig import TwinDeployment
from tests.end_to_end.load import find_wrong, make_request

TIMEOUT_S = 30.0
DENIED = grpc.StatusCode.PERMISSION_DENIED
POLICY = f"""\
access:
  tokens:
    login: {{issuer: "https://issuer.test", audiences: [sluice], jwks: {{keys: []}}}}
  roles:
    adds: {{models: [adder], actions: [infer]}}
    all: {{models: ["*"], actions: [infer, pin, metadata, load]}}
  grants:
  - {{role: adds, certificates: ["{CLIENT_URI}"]}}
  - {{role: all, certificates: ["spiffe://sluice.local/boss"]}}
  - {{role: all, token: {{issuer: login}}}}
"""
BOSS = "spiffe://sluice.local/boss"
# What the gateway would say of a token that it has verified.
CLAIMS = base64.urlsafe_b64encode(b'{"iss": "https://issuer.test", "sub": "boss"}').decode().rstrip("=")


@pytest.fixture(scope="module")
def guarded(transport, repository, tmp_path_factory):
    """A gateway before servers with a policy, and a boss among its clients."""
    folder = tmp_path_factory.mktemp("guarded")
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    with TwinDeployment(repository, folder, options=("--policy", policy)) as guarded:
        yield guarded


def issue(guarded, folder, *uris):
    """A certificate of the gateway's clients' authority with any URI names; the authority's key is at hand."""
    certificate, key = (guarded.certificates / f"gateway-ca.{suffix}" for suffix in ("pem", "key"))
    authority = x509.load_pem_x509_certificate(certificate.read_bytes())
    pair = Authority("model").issue(*(f"URI:{uri}" for uri in uris))
    made = x509.load_pem_x509_certificate(pair.chain)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(authority.subject, made.subject, made.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - HOUR).not_valid_after(now + HOUR)
    for extension in made.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signer = serialization.load_pem_private_key(key.read_bytes(), None)
    (folder / "odd.pem").write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "odd.key").write_bytes(pair.key)
    return guarded.rig.connect("odd", folder)


def infer(channel, request, metadata=()):
    """The code and the reply, or its text."""
    try:
        reply = GRPCInferenceServiceStub(channel).ModelInfer(
            request, timeout=TIMEOUT_S, metadata=metadata, wait_for_ready=True
        )
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, reply


def test_client_is_known_by_the_certificate_that_it_showed_the_gateway(guarded, tmp_path):
    """The service allows it what its name is granted, and says in its own words what it does not."""
    with guarded.rig.connect() as channel:
        code, reply = infer(channel, make_request(3))
        assert code is grpc.StatusCode.OK
        assert find_wrong(reply, 3) == ""
        assert infer(channel, pb.ModelInferRequest(model_name="sums")) == (
            DENIED,
            "infer on model 'sums': allowed by no role of the caller",
        )
    with issue(guarded, tmp_path, BOSS) as channel:
        assert infer(channel, pb.ModelInferRequest(model_name="sums"))[0] is not DENIED


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-forwarded-client-cert", f"Hash={'0' * 64};URI={BOSS}")],
        [("sluice-token", CLAIMS)],
        [("sluice-model-version", "1")],
    ],
)
def test_client_cannot_say_who_it_is(guarded, metadata):
    """The gateway replaces what its clients send under the names of its own headers."""
    with guarded.rig.connect() as channel:
        assert infer(channel, pb.ModelInferRequest(model_name="sums"), metadata)[0] is DENIED
        assert infer(channel, make_request(3), metadata)[0] is grpc.StatusCode.OK


def test_second_message_of_a_stream_gets_nobody_further(guarded, tmp_path):
    """The gateway looks at the first alone."""
    for connect in (guarded.rig.connect, lambda: issue(guarded, tmp_path, BOSS)):
        with connect() as channel:
            requests = [make_request(3), pb.ModelInferRequest(model_name="sums"), make_request(4)]
            stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(
                iter(requests), timeout=TIMEOUT_S, wait_for_ready=True
            )
            answers = list(stream)
        assert [bool(answer.error_message) for answer in answers] == [False, True, False]
        assert find_wrong(answers[2].infer_response, 4) == ""


def test_second_model_name_of_a_message_gets_nobody_further(guarded):
    """Whichever of them the gateway looks at."""
    names = [pb.ModelInferRequest(model_name=name).SerializeToString() for name in ("adder", "sums", "adder")]
    content = make_request(3).SerializeToString()
    with guarded.rig.connect() as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for message in (content + names[1], names[0] + content + names[1]):
            with pytest.raises(grpc.RpcError) as raised:
                send(message, timeout=TIMEOUT_S, wait_for_ready=True)
            assert raised.value.code() is DENIED


@pytest.mark.parametrize(
    "uris",
    [
        (f"{CLIENT_URI};URI={BOSS}",),
        (f"{BOSS};By=spiffe://sluice.local/x",),
        (f"{BOSS},By=spiffe://sluice.local/x",),
        (CLIENT_URI, BOSS),
        ("spiffe://sluice.local/other",),
        (),
    ],
)
def test_name_that_could_be_taken_for_another_is_taken_for_none(guarded, tmp_path, uris):
    """Envoy writes names without quotation marks: which of several, or what is part of one, cannot be told."""
    with issue(guarded, tmp_path, *uris) as channel:
        assert infer(channel, make_request(3))[0] is DENIED


def test_management_through_the_gateway_is_by_the_same_policy(guarded, tmp_path):
    """Answered by Python."""
    with guarded.rig.connect() as channel, pytest.raises(grpc.RpcError) as raised:
        GRPCInferenceServiceStub(channel).ModelReady(
            pb.ModelReadyRequest(name="adder"), timeout=TIMEOUT_S, wait_for_ready=True
        )
    assert raised.value.code() is DENIED
    with issue(guarded, tmp_path, BOSS) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(pb.ModelReadyRequest(name="adder"), timeout=TIMEOUT_S, wait_for_ready=True).ready
