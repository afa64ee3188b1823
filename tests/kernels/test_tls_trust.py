"""Certificates, authorities, names and revocations that change while connections are open."""

import contextlib
import threading
import time
from datetime import timedelta

import grpc
import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from tests.authorities import Authority
from tests.kernels.raw_service import WAIT_S, refused
from tests.kernels.stepped_handshake import SteppedHandshake
from tests.kernels.tls_service import VERSIONS, TlsClient, await_end, call

Code = grpc.StatusCode
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def second():
    """Another authority."""
    return Authority("second")


@contextlib.contextmanager
def opened(service, pair=None):
    """A channel whose connection is open."""
    with service.connect(pair) as channel:
        assert call(channel) == b"1"
        yield channel


class Load:
    """Threads that call again and again, each on a connection of its own."""

    def __init__(self, service, pairs):
        self._service = service
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(pair,)) for pair in pairs]
        self.answered, self.failures = 0, []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, pair):
        with self._service.connect(pair) as channel:
            while not self._is_over.is_set():
                try:
                    assert call(channel, b"%d" % self.answered)
                    self.answered += 1
                except grpc.RpcError as error:
                    self.failures.append(error)
                    return

    def await_more(self, count=30):
        """Return when so many more calls were answered."""
        wanted = self.answered + count
        while self.answered < wanted and not self.failures:
            time.sleep(0.005)


def show_serial(client):
    """The number of the certificate that the server shows to a new connection."""
    with client.shake_hands() as tls:
        return int(tls.getpeercert()["serialNumber"], 16)


def test_renewed_certificates_are_shown_at_once_and_no_call_fails(guarded, member):
    """However often, and under load: connections go on under the old ones."""
    client = TlsClient(guarded, member)
    with Load(guarded, [member] * 3) as load:
        load.await_more()
        for _ in range(20):
            assert guarded.renew() == show_serial(client)
        load.await_more()
    assert load.failures == []
    assert guarded.connections <= 3


def test_connections_of_an_authority_that_is_gone_are_closed(serve_tls, authority, member, second):
    """And no others; new ones are refused."""
    service = serve_tls(client_ca=authority.pem + second.pem)
    other = second.issue()
    with (
        Load(service, [member]) as load,
        Load(service, [other]) as lost,
        TlsClient(service, other).shake_hands() as tls,
    ):
        load.await_more()
        lost.await_more()
        service.trust(client_ca=authority.pem)
        await_end(tls)
        load.await_more()
        service.await_connections(1)
        assert not TlsClient(service, other).is_welcome()
    assert load.failures == []
    assert [error.code() for error in lost.failures] == [Code.UNAVAILABLE]


def test_connections_of_a_revoked_certificate_are_closed(guarded, authority, member):
    """And no others of the same authority; then those of the next list."""
    lost, last = authority.issue(), authority.issue()
    with opened(guarded, member) as channel, opened(guarded, last), TlsClient(guarded, lost).shake_hands() as tls:
        guarded.trust(crl=authority.revoke(lost))
        await_end(tls)
        guarded.await_connections(2)
        guarded.trust(crl=authority.revoke(lost, last))
        guarded.await_connections(1)
        assert call(channel) == b"1"


@pytest.mark.parametrize("version", VERSIONS)
def test_revoked_certificate_is_refused(serve_tls, authority, member, version):
    """Its neighbour is not."""
    service = serve_tls(client_ca=authority.pem, crl=authority.revoke(member))
    assert not TlsClient(service, member, version).is_welcome()
    assert TlsClient(service, authority.issue(), version).is_welcome()


def test_client_whose_authority_has_no_list_is_refused(serve_tls, authority, member, second):
    """With lists, each authority needs one."""
    service = serve_tls(client_ca=authority.pem + second.pem, crl=authority.revoke())
    assert service.call(member) == b"1"
    assert not TlsClient(service, second.issue()).is_welcome()
    service.trust(crl=authority.revoke() + second.revoke())
    assert service.call(second.issue()) == b"1"


def test_intermediate_authority_needs_a_list_of_its_own(serve_tls, authority):
    """And can be revoked itself."""
    middle = Authority("middle", issuer=authority)
    client = TlsClient(serve_tls(client_ca=authority.pem, crl=authority.revoke()), middle.issue())
    assert not client.is_welcome()
    client.service.trust(crl=authority.revoke() + middle.revoke())
    assert client.is_welcome()
    client.service.trust(crl=authority.revoke(middle) + middle.revoke())
    assert not client.is_welcome()


def test_names_that_change_are_those_of_the_next_call(serve_tls, authority, member):
    """On connections that are open, which stay."""
    service = serve_tls(client_ca=authority.pem, allowed_names=("spiffe://test/member",), refusal="no member")
    with opened(service, member) as channel:
        service.trust(allowed_names=("spiffe://test/other",))
        await_refusal(channel, "no member")
        service.trust(allowed_names=("spiffe://test/member",), refusal="nobody")
        await_answer(channel)
        assert service.connections == 1


def await_refusal(channel, text):
    """Return when a call is denied."""
    until = time.monotonic() + WAIT_S
    with refused(Code.PERMISSION_DENIED, text):
        while time.monotonic() < until:
            call(channel)


def await_answer(channel):
    """Return when a call is answered again; it is denied until then."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        try:
            call(channel)
        except grpc.RpcError:
            time.sleep(0.005)
        else:
            return
    raise AssertionError("still denied")


def test_connections_without_certificates_are_closed_when_one_is_demanded(serve_tls, authority, member):
    """Those with one stay."""
    service = serve_tls(client_ca=authority.pem, require_client_certificate=False)
    with opened(service, member) as channel, TlsClient(service).shake_hands() as tls:
        service.trust(require_client_certificate=True)
        await_end(tls)
        assert call(channel) == b"1"


def test_connection_outlives_its_certificate(guarded, authority):
    """As with gRPC and Envoy: time alone closes none, not even when trust changes later."""
    pair = authority.issue(ends=3 * SECOND)
    client = TlsClient(guarded, pair)
    with opened(guarded, pair) as channel:
        while client.is_welcome():
            time.sleep(0.05)
        assert call(channel) == b"1"
        guarded.trust(client_ca=authority.pem + Authority().pem)
        with TlsClient(guarded, authority.issue()).shake_hands():
            assert call(channel) == b"1"
        guarded.trust(crl=authority.revoke(pair))
        guarded.await_connections(0)


# ---- amid a handshake


@pytest.mark.parametrize("version", VERSIONS)
def test_handshake_that_meets_another_trust_is_judged_by_it(serve_tls, authority, member, second, version):
    """It began when the authority was still there, and ends when it is gone."""
    service = serve_tls(client_ca=authority.pem + second.pem)
    with SteppedHandshake(TlsClient(service, member, version)) as kept:
        with SteppedHandshake(TlsClient(service, second.issue(), version)) as lost:
            answers = []
            for handshake in (kept, lost):
                handshake.say_hello()
                answers.append(handshake.hear())
            service.trust(client_ca=authority.pem)
            assert lost.finish(answers[1]) == b""
        assert kept.finish(answers[0]) != b""


def test_connection_that_has_said_nothing_sees_the_newest_certificate(guarded, member):
    """What it will be shown is chosen when it begins."""
    with SteppedHandshake(TlsClient(guarded, member)) as handshake:
        guarded.await_connections(1)
        serial = guarded.renew()
        handshake.say_hello()
        assert handshake.finish(handshake.hear()) != b""
        assert int(handshake.getpeercert()["serialNumber"], 16) == serial


def test_many_connections_are_judged_amid_calls(serve_tls, authority, member, second):
    """Those of the authority that is gone are closed soon, and nobody else waits for that."""
    service = serve_tls(client_ca=authority.pem + second.pem, io_threads=2)
    lost, kept = TlsClient(service, second.issue()), TlsClient(service, member)
    with contextlib.ExitStack() as stack:
        for client in (lost, kept) * 100:
            stack.enter_context(client.shake_hands())
        channel = stack.enter_context(opened(service, member))
        service.trust(client_ca=authority.pem)
        service.await_connections(101)
        assert call(channel) == b"1"
