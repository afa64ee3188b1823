"""Sessions that clients take up again: quickly, and never past what would be refused today."""

import time
from datetime import timedelta

import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from tests.authorities import Authority
from tests.kernels.openssl_client import OpensslClient
from tests.kernels.raw_service import WAIT_S
from tests.kernels.tls_service import TLS_1_2, VERSIONS, TlsClient

pytestmark = pytest.mark.parametrize("version", VERSIONS)
SECOND = timedelta(seconds=1)


def begin_session(client):
    """A session that the client may take up; it hangs up as clients of gRPC do, without close_notify."""
    with client.shake_hands() as tls:
        assert not tls.session_reused
        return tls.session


def is_resumed(client, session):
    """Whether the server takes the session up; it lets the client in either way."""
    with client.shake_hands(session) as tls:
        return tls.session_reused


def test_session_is_taken_up_again_and_again(guarded, member, version):
    """By its client."""
    client = TlsClient(guarded, member, version)
    session = begin_session(client)
    assert [is_resumed(client, session) for _ in range(5)] == [True] * 5


def test_session_of_a_client_without_certificate_is_taken_up(serve_tls, version):
    """By a server that asks for none."""
    client = TlsClient(serve_tls(), None, version)
    assert is_resumed(client, begin_session(client))


def test_session_with_an_intermediate_authority_is_taken_up(guarded, authority, version):
    """What the client sent in the first handshake is known in the second."""
    client = TlsClient(guarded, Authority("middle", issuer=authority).issue(), version)
    assert is_resumed(client, begin_session(client))


def test_session_of_openssl_is_taken_up(guarded, member, version, tmp_path):
    """By the command that everybody has at hand."""
    file, flag = tmp_path / "session", "-tls1_2" if version is TLS_1_2 else "-tls1_3"
    with OpensslClient(guarded, member, flag, "-sess_out", file) as client:
        client.await_settings()
    with OpensslClient(guarded, member, flag, "-sess_in", file) as client:
        client.await_output("Reused, TLSv1.2" if version is TLS_1_2 else "Reused, TLSv1.3")
        client.await_settings()


def test_session_is_taken_up_by_openssl_that_reconnects(guarded, member, version):
    """Five times in a row; in TLS 1.3 the command does not wait for the ticket, and shakes hands in full."""
    with OpensslClient(guarded, member, "-tls1_2" if version is TLS_1_2 else "-tls1_3", "-reconnect") as client:
        client.await_output("drop connection and then reconnect")
        client.await_output("Reused, TLSv1.2" if version is TLS_1_2 else "New, TLSv1.3", 5)


def test_session_is_not_taken_up_by_a_server_whose_trust_has_changed(guarded, authority, member, version):
    """Whatever it was: a handshake in full follows, and its session is good."""
    client = TlsClient(guarded, member, version)
    old = begin_session(client)
    guarded.trust(client_ca=authority.pem + Authority("second").pem)
    assert not is_resumed(client, old)
    assert is_resumed(client, begin_session(client))


def test_session_of_an_authority_that_is_gone_is_refused(guarded, member, version):
    """The handshake in full fails."""
    client = TlsClient(guarded, member, version)
    session = begin_session(client)
    guarded.trust(client_ca=Authority("authority").pem)
    assert not client.is_welcome(session)


def test_session_of_a_revoked_certificate_is_refused(guarded, authority, member, version):
    """A list that was put in place in between; others of the authority are taken."""
    other = TlsClient(guarded, authority.issue(), version)
    client = TlsClient(guarded, member, version)
    session = begin_session(client)
    guarded.trust(crl=authority.revoke(member))
    assert not client.is_welcome(session)
    assert is_resumed(other, begin_session(other))


def test_session_of_an_expired_certificate_is_refused(guarded, authority, version):
    """It ends with the certificate."""
    client = TlsClient(guarded, authority.issue(ends=2 * SECOND), version)
    session = begin_session(client)
    assert is_resumed(client, session)
    await_refusal(client, session)


def test_session_of_an_expired_certificate_makes_way_for_the_new_one(guarded, authority, version):
    """A client that has renewed its certificate, and kept the session, shakes hands in full."""
    client = TlsClient(guarded, authority.issue(ends=2 * SECOND), version)
    session = begin_session(client)
    await_refusal(client)
    client.load(authority.issue())
    assert not is_resumed(client, session)


def test_session_under_a_list_that_has_expired_is_refused(guarded, authority, member, version):
    """As every client is then: nobody knows whom the next list names."""
    guarded.trust(crl=authority.revoke(ends=2 * SECOND))
    client = TlsClient(guarded, member, version)
    session = begin_session(client)
    assert is_resumed(client, session)
    await_refusal(client, session)
    assert not client.is_welcome()
    guarded.trust(crl=authority.revoke())
    assert client.is_welcome(session)


def test_session_is_judged_by_the_names_of_today(serve_tls, authority, member, version):
    """A name that is not allowed any more is denied, however the connection came about."""
    service = serve_tls(client_ca=authority.pem, allowed_names=("spiffe://test/member",))
    client = TlsClient(service, member, version)
    session = begin_session(client)
    assert is_resumed(client, session)
    service.trust(allowed_names=("spiffe://test/other",))
    assert not is_resumed(client, session)


def test_session_of_another_server_is_not_taken_up(serve_tls, authority, member, version):
    """Each has its own."""
    first, second = (serve_tls(client_ca=authority.pem) for _ in range(2))
    client = TlsClient(first, member, version)
    session = begin_session(client)
    client.service = second
    assert not is_resumed(client, session)


def await_refusal(client, session=None):
    """Return when the server does not let a client in any more, as soon as its certificate or a list ends."""
    until = time.monotonic() + WAIT_S
    while client.is_welcome(session):
        assert time.monotonic() < until
        time.sleep(0.05)
