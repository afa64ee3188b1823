"""Who is let in by TLS, and by which: versions, ciphers, protocols, clients' certificates, chains."""

import ssl
import threading
import warnings

import grpc
import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from tests.authorities import HOUR, SERVER, Authority, sign_oneself
from tests.kernels.openssl_client import OpensslClient
from tests.kernels.raw_service import WAIT_S, path, refused
from tests.kernels.tls_service import ECHO, TLS_1_2, TLS_1_3, VERSIONS, TlsClient

Code = grpc.StatusCode


# ---- the protocol


@pytest.mark.parametrize("version", VERSIONS)
def test_version_since_1_2_is_spoken(guarded, member, version):
    """With h2 chosen."""
    with TlsClient(guarded, member, version).shake_hands() as tls:
        assert tls.version() == version.name.replace("v1_", "v1.")
        assert tls.selected_alpn_protocol() == "h2"


def test_version_before_1_2_is_refused(guarded, member):
    """By an alert that says so."""
    with warnings.catch_warnings(action="ignore"):
        client = TlsClient(guarded, member, ssl.TLSVersion.TLSv1_1, ciphers="ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="alert protocol version"), client.shake_hands():
        pass


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocols", [(), ("http/1.1",), ("grpc-exp", "h3")])
def test_client_that_does_not_offer_h2_is_refused(guarded, member, version, protocols):
    """Also one that offers nothing, as grpcio's server does; here an alert says why."""
    client = TlsClient(guarded, member, version, protocols)
    with pytest.raises(ssl.SSLError, match="alert no application protocol"), client.shake_hands():
        pass
    guarded.await_connections(0)


def test_client_that_offers_h2_among_others_is_taken(guarded, member):
    """In whatever place."""
    with TlsClient(guarded, member, protocols=("http/1.1", "h2")).shake_hands() as tls:
        assert tls.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES256-CCM"])
def test_cipher_that_http2_forbids_is_refused(guarded, member, cipher):
    """Those of RFC 9113's appendix, and others that nobody needs."""
    client = TlsClient(guarded, member, TLS_1_2, ciphers=cipher)
    with pytest.raises(ssl.SSLError, match="handshake failure"), client.shake_hands():
        pass


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"])
def test_cipher_that_http2_allows_is_spoken(guarded, member, cipher):
    """With forward secrecy and authenticated encryption."""
    with TlsClient(guarded, member, TLS_1_2, ciphers=f"ECDHE-ECDSA-{cipher}").shake_hands() as tls:
        assert tls.cipher()[0] == f"ECDHE-ECDSA-{cipher}"


def test_renegotiation_is_refused(guarded, member):
    """HTTP/2 forbids it, and it costs the server more than the client."""
    with OpensslClient(guarded, member, "-tls1_2") as client:
        client.await_settings()
        client.write("R\n")
        client.await_output("no renegotiation")
    assert guarded.call(member) == b"1"


def test_new_keys_are_agreed_on_amid_calls(guarded, member):
    """TLS 1.3's own way to renew them."""
    with OpensslClient(guarded, member, "-tls1_3") as client:
        client.await_settings()
        for count in range(1, 20):
            client.write("K\n")
            client.await_output("KEYUPDATE", count)
        assert guarded.call(member) == b"1"
        assert not client.has_ended


# ---- clients' certificates


def test_demanded_certificate_is_taken(guarded, member):
    """Of the authority."""
    assert guarded.call(member) == b"1"


WRONG = {
    "none": lambda authority: None,
    "for servers only": lambda authority: authority.issue(purpose=SERVER),
    "expired": lambda authority: authority.issue(ends=-HOUR / 2),
    "not valid yet": lambda authority: authority.issue(begins=HOUR / 2),
    "of another authority of the same name": lambda authority: Authority("authority").issue(),
    "its own authority": lambda authority: sign_oneself(),
    "of an authority that is none": lambda authority: Authority("peer", issuer=authority, may_issue=False).issue(),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", WRONG)
def test_client_with_a_wrong_certificate_is_refused(guarded, authority, version, who):
    """In the handshake, and nothing of it is left."""
    assert not TlsClient(guarded, WRONG[who](authority), version).is_welcome()
    guarded.await_connections(0)


@pytest.mark.parametrize("who", WRONG)
def test_call_with_a_wrong_certificate_is_unavailable(guarded, authority, who):
    """As grpcio's clients see it."""
    with refused(Code.UNAVAILABLE):
        guarded.call(WRONG[who](authority))


def test_certificate_without_purpose_is_for_any(guarded, authority):
    """As grpcio and Envoy have it."""
    assert guarded.call(authority.issue(purpose=None)) == b"1"


def test_optional_certificate_may_be_missing_and_must_be_right(serve_tls, authority, member):
    """Who shows one is looked at."""
    service = serve_tls(client_ca=authority.pem, require_client_certificate=False)
    assert service.call() == b"1"
    assert service.call(member) == b"1"
    with refused(Code.UNAVAILABLE):
        service.call(WRONG["expired"](authority))


def test_certificate_that_nobody_asks_for_is_not_sent(serve_tls, authority):
    """Even a wrong one is welcome."""
    seen = []
    whoami = grpc.unary_unary_rpc_method_handler(lambda request, context: seen.append(context.auth_context()) or b"")
    service = serve_tls({"Echo": whoami})
    service.call(WRONG["expired"](authority))
    assert "x509_pem_cert" not in seen[0]


# ---- names

NAME, REFUSAL = "spiffe://test/member", "members only"


@pytest.fixture
def named(serve_tls, authority):
    """A server for whoever carries a name."""
    return serve_tls(client_ca=authority.pem, allowed_names=("spiffe://test/other", NAME), refusal=REFUSAL)


@pytest.mark.parametrize("names", [(f"URI:{NAME}",), ("DNS:a.b", "URI:spiffe://x/y", f"URI:{NAME}")])
def test_client_with_an_allowed_name_is_served(named, authority, names):
    """In any place."""
    assert named.call(authority.issue(*names)) == b"1"


@pytest.mark.parametrize(
    "names", [(), ("URI:spiffe://test/membe",), ("URI:spiffe://test/member2",), ("DNS:spiffe",), (f"EMAIL:{NAME}",)]
)
def test_client_without_an_allowed_name_is_denied_every_call(named, authority, names):
    """It may connect, and is told."""
    with named.connect(authority.issue(*names, common=NAME)) as channel:
        for method in ("Echo", "Missing", "Echo"):
            with refused(Code.PERMISSION_DENIED, REFUSAL):
                channel.unary_unary(path(method))(b"", timeout=WAIT_S)
        with refused(Code.PERMISSION_DENIED, REFUSAL):
            list(channel.stream_stream(path("Echo"))(iter([b"1"]), timeout=WAIT_S))
    assert named.call(authority.issue(f"URI:{NAME}")) == b"1"


def test_name_with_a_nul_in_it_is_another_name(named, authority):
    """A comparison that ended there would take it for the allowed one."""
    with refused(Code.PERMISSION_DENIED, REFUSAL):
        named.call(authority.issue(f"URI:{NAME}\0.evil"))


def test_optional_certificate_that_is_missing_carries_no_name(serve_tls, authority):
    """So that its calls are denied."""
    service = serve_tls(
        client_ca=authority.pem, require_client_certificate=False, allowed_names=(NAME,), refusal=REFUSAL
    )
    with refused(Code.PERMISSION_DENIED, REFUSAL):
        service.call()


# ---- chains


def test_client_with_an_intermediate_authority_is_trusted_if_it_sends_it(guarded, authority):
    """Not without: the server knows the first one only."""
    middle = Authority("middle", issuer=authority)
    pair = middle.issue()
    assert guarded.call(pair) == b"1"
    assert not TlsClient(guarded, type(pair)(pair.chain.removesuffix(middle.pem), pair.key)).is_welcome()


def test_intermediate_authority_may_be_trusted_alone(serve_tls, authority):
    """As grpcio and Envoy have it: others of the same root are not."""
    middle = Authority("middle", issuer=authority)
    service = serve_tls(client_ca=middle.pem)
    assert service.call(middle.issue()) == b"1"
    assert not TlsClient(service, authority.issue()).is_welcome()
    assert not TlsClient(service, Authority("other", issuer=authority).issue()).is_welcome()


def test_server_sends_its_own_intermediate_authority(guarded, authority, member):
    """Clients know the root."""
    guarded.show(Authority("middle", issuer=authority).serve())
    with TlsClient(guarded, member).shake_hands() as tls:
        assert dict(part[0] for part in tls.getpeercert()["issuer"]) == {"commonName": "middle"}


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_server_sends_no_certificate_that_its_file_has_not(guarded, member, version):
    """Those of clients' authorities are there to judge clients."""
    arguments = ("-showcerts", "-tls1_2" if version is TLS_1_2 else "-tls1_3")
    with OpensslClient(guarded, member, *arguments) as client:
        assert client.await_output("Server certificate").count("BEGIN CERTIFICATE") == 1


# ---- many at a time


def test_handshakes_of_many_threads_are_all_done(serve_tls, authority, member):
    """On all I/O threads."""
    service = serve_tls(ECHO, client_ca=authority.pem, io_threads=2)
    client, taken = TlsClient(service, member), []

    def connect():
        for _ in range(10):
            taken.append(client.is_welcome())

    threads = [threading.Thread(target=connect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [True] * 80
    service.await_connections(0)
