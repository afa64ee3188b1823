"""The rendered configuration, in a real Envoy: who gets where, and who does not."""

import shutil
import socket
import ssl
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from gateway_rig import MAX_MESSAGE_BYTES, Backend, call, infer, make_deployment, start_rig

from certs import ensure_certificates
from service.admin import AdminError, OperatorListener
from service.envoy_check import GatewayError, find_envoy
from service.gateway import ADMIN_SOCKET, VERSION_HEADER
from service.gateway_install import install
from service.pb import open_inference_pb2 as pb
from tests.raw_http2 import RawConnection


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A gateway that splits `digits` 90 to 10."""
    with start_rig(tmp_path_factory.mktemp("gateway")) as rig:
        yield rig


@pytest.fixture
def channel(rig):
    """A client's connection."""
    with rig.connect() as channel:
        yield channel


def client_context(rig):
    """TLS of a client that has its certificate."""
    context = ssl.create_default_context(cafile=str(rig.certificates / "gateway-ca.pem"))
    context.load_cert_chain(rig.certificates / "client.pem", rig.certificates / "client.key")
    context.set_alpn_protocols(["h2"])
    return context


def fetch_serial(rig):
    """Serial number of the certificate that the gateway shows at the moment."""
    context = client_context(rig)
    address = (rig.deployment.gateway.host, rig.deployment.gateway.port)
    with (
        socket.create_connection(address, 5) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number


def read_serial(rig):
    """Serial number of the gateway's certificate on disk."""
    return x509.load_pem_x509_certificate((rig.certificates / "gateway.pem").read_bytes()).serial_number


@pytest.mark.parametrize(("version", "answer"), [("1", "a:1"), ("2", "b:2")])
def test_infer_with_version_reaches_that_version(channel, version, answer):
    """A version that the message names is served, whatever its weight."""
    assert {infer(channel, version=version) for _ in range(20)} == {answer}


@pytest.mark.parametrize("message", [pb.ModelReadyRequest, pb.ModelMetadataRequest, pb.ModelConfigRequest])
def test_management_call_with_version_reaches_that_version(channel, message):
    """Calls that name their model in other fields go the same way."""
    method = message.DESCRIPTOR.name.removesuffix("Request")
    assert call(channel, method, message(name="digits", version="2")) == "b:2"
    assert call(channel, method, message(name="digits", version="1")) == "a:1"


def test_infer_without_version_splits_by_weight(channel):
    """Of 2,000 calls at 90 to 10, between 130 and 270 reach version 2: five standard deviations."""
    answers = Counter(infer(channel) for _ in range(2000))
    assert set(answers) == {"a:1", "b:2"}
    assert 130 < answers["b:2"] < 270


def test_stream_follows_its_first_message(channel):
    """A stream stays with the version that its first message names."""
    request = pb.ModelInferRequest(model_name="digits", model_version="2").SerializeToString()
    answers = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter([request] * 3), timeout=60)
    assert list(answers) == [b"b:2"] * 3


@pytest.mark.parametrize(
    ("method", "message", "words"),
    [
        ("ModelInfer", pb.ModelInferRequest(model_name="letters"), "no such model here; there are digits"),
        ("ModelInfer", pb.ModelInferRequest(model_name="digits@1"), "no such model here; there are digits"),
        ("ModelReady", pb.ModelReadyRequest(name="letters"), "no such model here; there are digits"),
        ("ModelInfer", pb.ModelInferRequest(model_name="digits", model_version="3"), "it has 1, 2"),
        ("ModelReady", pb.ModelReadyRequest(name="digits", version="one"), "it has 1, 2"),
    ],
)
def test_call_for_unknown_model_or_version_is_not_found(channel, method, message, words):
    """The gateway itself says what there is."""
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, method, message)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert words in raised.value.details()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ServerLive", b""),
        ("RepositoryIndex", b""),
        ("ModelStatistics", b""),
        ("ModelReady", b"\xff\xff"),
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="digits")),
    ],
)
def test_call_that_names_no_model_reaches_any_server_without_version(channel, method, message):
    """What is no model's business, and what cannot be read, is the service's to answer."""
    headers = [(VERSION_HEADER, "2")]
    assert {call(channel, method, message, metadata=headers) for _ in range(20)} <= {"a:-", "b:-"}


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xff",
        pb.ModelInferRequest(model_name="a\nb").SerializeToString(),
    ],
    ids=["empty", "broken", "of two lines"],
)
def test_infer_of_which_no_known_model_can_be_read_reaches_no_server(rig, channel, method, message):
    """Or it would come past all that holds for a model: its versions' weights, limits and places."""
    before = sum(len(backend.calls) for backend in rig.backends.values())
    with pytest.raises(grpc.RpcError) as raised:
        list(channel.stream_stream("/inference.GRPCInferenceService/" + method)(iter([message]), timeout=60))
    assert raised.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert sum(len(backend.calls) for backend in rig.backends.values()) == before


@pytest.mark.parametrize(
    "content_type",
    [
        "application/grpc;x",
        "application/grpc; charset=utf-8",
        "application/grpc,application/grpc",
        "application/grpc ",
        "Application/gRPC",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/json",
        "",
        None,
    ],
)
def test_infer_of_another_content_type_reaches_no_server(rig, content_type):
    """Field extraction does not look into it, while servers, grpcio's among them, take it for gRPC."""
    before = sum(len(backend.calls) for backend in rig.backends.values())
    reply = send_raw(rig, content_type)
    assert (reply.fields[":status"], "grpc-status" in reply.fields) == ("415", False)
    assert b"expected application/grpc" in reply.data
    assert sum(len(backend.calls) for backend in rig.backends.values()) == before


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc+;x"])
def test_infer_of_a_content_type_of_grpc_is_routed_by_its_model(rig, content_type):
    """Whatever Envoy takes for gRPC, it looks into."""
    assert send_raw(rig, content_type).message == b"b:2"


def send_raw(rig, content_type):
    """What the gateway says to an inference of version 2 that comes as a content type."""
    tls = client_context(rig)
    message = pb.ModelInferRequest(model_name="digits", model_version="2").SerializeToString()
    with RawConnection(str(rig.deployment.gateway), tls=tls) as connection:
        stream = connection.send_call(message, _scheme="https", content_type=content_type)
        return connection.await_reply(stream)


def test_client_headers_choose_neither_version_nor_identity(rig, channel):
    """What a client says of itself and of the way is dropped; the service is told what was proven."""
    metadata = [
        (VERSION_HEADER, "2"),
        ("x-forwarded-client-cert", "URI=spiffe://sluice.local/operator/demo"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-max-retries", "50"),
    ]
    assert {infer(channel, version="1", metadata=metadata) for _ in range(10)} == {"a:1"}
    _, seen, _ = rig.backends[1].calls[-1]
    assert "operator" not in seen["x-forwarded-client-cert"]
    assert seen["x-forwarded-client-cert"].endswith("URI=spiffe://sluice.local/client/demo")
    assert not [name for name in seen if name.startswith("x-envoy-")]


def test_infer_with_8_mib_arrives_whole(rig, channel):
    """A message is held until its model is known and then passed on whole."""
    message = pb.ModelInferRequest(model_name="digits", model_version="2", raw_input_contents=[bytes(8 * 2**20)])
    assert call(channel, "ModelInfer", message) == "b:2"
    assert rig.backends[2].calls[-1][2] == message.ByteSize()


def test_infer_over_the_limit_is_exhausted_and_the_connection_goes_on(channel):
    """A message that is too large is refused by its right status, and only that one."""
    message = pb.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(MAX_MESSAGE_BYTES + 2**20)])
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, "ModelInfer", message)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE_BYTES) in raised.value.details()
    assert infer(channel, version="1") == "a:1"


def test_infer_with_compression_is_refused_with_the_reason(channel):
    """A compressed message cannot be routed by the model in it; the client is told."""
    method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    message = pb.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(1000)]).SerializeToString()
    with pytest.raises(grpc.RpcError, match="expected an uncompressed one") as raised:
        method(message, timeout=60, compression=grpc.Compression.Gzip)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("who", ["nobody", "another authority", "internal", "expired", "a server"])
def test_client_without_proper_certificate_is_refused(rig, tmp_path, who):
    """Only a certificate of the gateway's authority, for clients and not expired, comes in."""
    name, folder = "client", tmp_path
    if who == "nobody":
        name = None
    elif who == "another authority":
        ensure_certificates(tmp_path)
    elif who == "internal":
        name, folder = "gateway-upstream", rig.certificates
    elif who == "a server":
        name, folder = "gateway", rig.certificates
    else:
        for path in rig.certificates.glob("*-ca.*"):
            shutil.copy(path, tmp_path)
        ensure_certificates(tmp_path, now=datetime.now(UTC) - timedelta(days=400))
    before = len(rig.backends[1].calls)
    with rig.connect(name, folder) as channel, pytest.raises(grpc.RpcError) as raised:
        infer(channel, version="1")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(rig.backends[1].calls) == before


@pytest.mark.parametrize("path", ["/ready", "/clusters", "/stats", "/stats/prometheus", "/runtime", "/listeners"])
def test_operator_reads_what_is_allowed(rig, path):
    """An operator's certificate opens what an operator needs."""
    assert rig.operator.request("GET", path)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/config_dump"),
        ("GET", "/certs"),
        ("POST", "/quitquitquit"),
        ("POST", "/ready"),
        ("GET", "/ready/../config_dump"),
        ("GET", "/%63onfig_dump"),
        ("GET", "/runtime_modify?sluice.weights.digits.digits@1=1"),
        ("POST", "/runtime_modify?envoy.reloadable_features.any=0"),
        ("POST", "/runtime_modify?sluice.weights.digits.digits@1=1&re2.max_program_size.error_level=0"),
        ("POST", "/runtime_modify?sluice.weights.digits.digits@1=lots"),
    ],
)
def test_operator_beyond_what_is_allowed_is_refused(rig, method, target):
    """Nothing else of the admin is reached, nor any other key of the runtime."""
    with pytest.raises(AdminError, match="403"):
        rig.operator.request(method, target)


def test_operator_listener_with_clients_certificate_is_refused(rig):
    """A client of the gateway is no operator."""
    certificates = rig.certificates
    client = OperatorListener(
        rig.deployment.operator,
        certificates / "gateway-ca.pem",
        certificates / "client.pem",
        certificates / "client.key",
    )
    with pytest.raises(AdminError, match="403"):
        client.request("GET", "/ready")


def test_admin_socket_is_private(rig):
    """Nobody but the owner opens the admin's socket."""
    mode = (rig.state_folder / ADMIN_SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_second_gateway_on_the_same_port_is_not_ready(rig, tmp_path):
    """A port is never shared in silence, and another's listener is not taken for one's own."""
    gateway = rig.deployment.gateway
    with pytest.raises(AssertionError, match=rf"cannot bind '{gateway}': Address already in use"):  # noqa: SIM117
        with start_rig(tmp_path, gateway=gateway, start_timeout_s=3.0):
            pass


def test_renewed_certificates_under_load_are_taken_without_failure(rig):
    """A renewal by rename is noticed at once and no call fails."""
    before = fetch_serial(rig)
    with rig.load() as load:
        load.wait_for_more(50)
        ensure_certificates(rig.certificates, renew=True)
        for _ in range(200):
            load.wait_for_more(10)
            if fetch_serial(rig) != before:
                break
        load.wait_for_more(100)
    assert fetch_serial(rig) == read_serial(rig) != before
    assert load.failures == []
    with rig.connect() as channel:
        assert infer(channel, version="2") == "b:2"


def test_version_that_fails_is_replaced_by_another_that_knows_its_own_number(tmp_path):
    """A call that is retried elsewhere is told the version it has arrived at; one that named a version is not moved."""
    with start_rig(tmp_path, weights=(50, 50)) as rig, rig.connect() as channel:
        rig.backends[1].is_failing = True
        assert Counter(infer(channel) for _ in range(100)) == {"b:2": 100}
        with pytest.raises(grpc.RpcError, match="failing"):
            infer(channel, version="1")


def test_version_of_weight_0_gets_only_what_asks_for_it(tmp_path):
    """Not even a failing neighbour's calls come to a version that is not in the split."""
    with start_rig(tmp_path, weights=(100, 0)) as rig, rig.connect() as channel:
        assert Counter(infer(channel) for _ in range(200)) == {"a:1": 200}
        assert infer(channel, version="2") == "b:2"
        rig.backends[1].is_failing = True
        with pytest.raises(grpc.RpcError, match="failing"):
            infer(channel)


def test_server_that_breaks_off_under_load_is_replaced_by_its_twin(tmp_path):
    """Of two servers of one version, one may go at any time without a failed call."""
    ensure_certificates(tmp_path / "certs")
    first, twin, other = (Backend(name, tmp_path / "certs") for name in ("first", "twin", "other"))
    with start_rig(tmp_path, weights=(1, 0), backends={1: [first, twin], 2: [other]}) as rig, rig.load() as load:
        assert set(load.wait_for_more(100)) == {"first:1", "twin:1"}
        first.stop()
        load.wait_for_more(200)
    assert load.failures == []


def test_server_without_the_services_identity_is_not_called(tmp_path):
    """A server behind the gateway must prove who it is, not only who vouches for it."""
    with start_rig(tmp_path, service_identity="spiffe://sluice.local/another") as rig, rig.connect() as channel:
        with pytest.raises(grpc.RpcError) as raised:
            infer(channel)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        assert rig.backends[1].calls == []


def test_install_of_what_envoy_refuses_leaves_all_in_place(tmp_path):
    """What serves is never replaced by what cannot."""
    ensure_certificates(tmp_path / "certs")
    install(make_deployment(tmp_path), tmp_path, find_envoy())
    before = {path: path.read_bytes() for path in (tmp_path / "envoy").rglob("*") if path.is_file()}
    with pytest.raises(GatewayError, match=r"no\.such\.address"):
        install(make_deployment(tmp_path, "no.such.address"), tmp_path, find_envoy())
    assert {path: path.read_bytes() for path in (tmp_path / "envoy").rglob("*") if path.is_file()} == before
