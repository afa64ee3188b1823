"""Certificates and keys that cannot be used: refused with a text that says which, and nothing has changed."""

import ssl
from dataclasses import replace
from datetime import timedelta

import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from kernels.tls import TlsError, TlsSettings
from tests.authorities import HOUR, Authority, encrypt
from tests.kernels.tls_service import HOST, Server, TlsClient

CERTIFICATE, KEY = "the server's certificate", "the server's key"
CLIENTS, REVOKED = "the clients' authorities", "the lists of revoked certificates"


@pytest.fixture(scope="module")
def own(authority):
    """A server's pair."""
    return authority.serve()


@pytest.fixture(scope="module")
def good(authority, own):
    """Settings with which a server starts."""
    return TlsSettings(certificate=own.chain, key=own.key, client_ca=authority.pem, crl=authority.revoke())


def cut(pem):
    """As much as a writer that is interrupted leaves."""
    return pem[: len(pem) - len(pem) // 3]


BROKEN = {
    "certificate is empty": (CERTIFICATE, lambda good, authority: {"certificate": b""}),
    "certificate is noise": (CERTIFICATE, lambda good, authority: {"certificate": bytes(range(256))}),
    "certificate is a key": (CERTIFICATE, lambda good, authority: {"certificate": good.key}),
    "certificate is cut": (CERTIFICATE, lambda good, authority: {"certificate": cut(good.certificate)}),
    "chain is cut": (CERTIFICATE, lambda good, authority: {"certificate": good.certificate + cut(authority.pem)}),
    "key is empty": (KEY, lambda good, authority: {"key": b""}),
    "key is noise": (KEY, lambda good, authority: {"key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n"}),
    "key is a certificate": (KEY, lambda good, authority: {"key": good.certificate}),
    "key is encrypted": (f"{KEY}: is encrypted", lambda good, authority: {"key": encrypt(good.key, b"secret")}),
    "key is another's": (f"{KEY} does not belong", lambda good, authority: {"key": authority.serve().key}),
    "authorities are empty": (CLIENTS, lambda good, authority: {"client_ca": b""}),
    "authorities are noise": (CLIENTS, lambda good, authority: {"client_ca": b"\xff" * 100}),
    "authorities are cut": (CLIENTS, lambda good, authority: {"client_ca": authority.pem + cut(authority.pem)}),
    "lists are empty": (REVOKED, lambda good, authority: {"crl": b""}),
    "lists are noise": (REVOKED, lambda good, authority: {"crl": authority.pem}),
    "lists are cut": (REVOKED, lambda good, authority: {"crl": good.crl + cut(good.crl)}),
    "list has expired": (REVOKED, lambda good, authority: {"crl": authority.revoke(ends=-timedelta(seconds=1))}),
    "list begins later": (REVOKED, lambda good, authority: {"crl": authority.revoke(begins=HOUR / 2)}),
    "lists without authorities": (CLIENTS, lambda good, authority: {"client_ca": None}),
    "names without authorities": (
        CLIENTS,
        lambda good, authority: {"client_ca": None, "crl": None, "allowed_names": ("spiffe://a/b",)},
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_settings_that_cannot_be_used_name_what_is_wrong(good, authority, what):
    """At the start, before anything listens."""
    said, change = BROKEN[what]
    with pytest.raises(TlsError, match=said):
        Server().add_secure_port(f"{HOST}:0", replace(good, **change(good, authority)))


@pytest.mark.parametrize("what", BROKEN)
def test_replacement_that_cannot_be_used_leaves_the_old_in_force(guarded, good, authority, member, what):
    """Sessions among it."""
    client = TlsClient(guarded, member)
    with client.shake_hands() as tls:
        session = tls.session
    with pytest.raises(TlsError):
        guarded.server.replace_tls(replace(good, **BROKEN[what][1](good, authority)))
    with client.shake_hands(session) as tls:
        assert tls.session_reused


def test_refusal_leaves_nothing_behind_for_others_of_the_thread(good, tmp_path):
    """OpenSSL keeps errors by thread: what is left there is taken for a failure of whoever asks next."""
    for _, change in BROKEN.values():
        with pytest.raises(TlsError):
            Server().add_secure_port(f"{HOST}:0", replace(good, **change(good, Authority())))
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            ssl.create_default_context().wrap_bio(received, sent, server_hostname="localhost").do_handshake()


def test_chain_with_words_between_certificates_is_read(good, authority):
    """As `openssl x509 -text` writes them; and the key may stand in the same file."""
    middle = Authority("middle", issuer=authority)
    pair = middle.serve()
    first, second = pair.chain.split(middle.pem)[0], middle.pem
    text = b"subject=server\n" + first + b"\nissuer=middle\n" + second + pair.key + b"the end\n"
    assert Server().add_secure_port(f"{HOST}:0", replace(good, certificate=text, key=text))
