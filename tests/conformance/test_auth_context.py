"""What a servicer is told of its caller's certificate: by both servers the same, in one order."""

import pytest

from tests.authorities import Authority
from tests.conformance.probe import TIMEOUT_S, Probe
from tests.conformance.servers import SERVERS, Identity

# OpenSSL and BoringSSL have other groups, and other names for the same ones.
LEFT_OUT = "ssl_negotiated_key_exchange_group"


class Onlooker:
    """A servicer that writes down who calls."""

    def __call__(self, request, context):
        """Write it down."""
        auth = dict(context.auth_context())
        auth.pop(LEFT_OUT, None)
        self.seen = (list(auth.items()), context.peer_identity_key(), context.peer_identities())
        return request


@pytest.fixture(scope="module")
def root():
    """Who vouches for clients and servers."""
    return Authority("root")


CALLERS = {
    "one name": lambda root: root.issue("URI:spiffe://example.org/client"),
    "names of all kinds": lambda root: root.issue(
        "DNS:a.example.org",
        "URI:spiffe://x/y",
        "EMAIL:a@b.c",
        "IP:10.0.0.1",
        "IP:::1",
        "IP:::ffff:1.2.3.4",
        "RID:1.2.3",
    ),
    "two URIs": lambda root: root.issue("URI:spiffe://x/y", "URI:spiffe://x/z"),
    "another URI": lambda root: root.issue("URI:https://example.org/a"),
    "a trust domain alone": lambda root: root.issue("URI:spiffe://example.org"),
    "a trust domain and a slash": lambda root: root.issue("URI:spiffe://example.org/"),
    "a common name alone": lambda root: root.issue(common="somebody"),
    "a common name beyond ASCII": lambda root: root.issue(common="Käse 🧀"),
    "a common name with commas": lambda root: root.issue(common='a, b+c="d"'),
    "no common name": lambda root: root.issue("URI:a://b", common=""),
    "no name at all": lambda root: root.issue(common=""),
    "an intermediate authority": lambda root: Authority("middle", issuer=root).issue("DNS:a.b"),
    "two intermediate authorities": lambda root: Authority("low", issuer=Authority("middle", issuer=root)).issue(),
    "any purpose": lambda root: root.issue(purpose=None),
}


def describe(kind, server, folder, authority=None, pair=None):
    """What a servicer of a kind of server is told of a caller."""
    onlooker = Onlooker()
    identity = server and Identity(server.chain, server.key, authority and authority.pem)
    with Probe(SERVERS[kind], "unary_unary", onlooker, identity=identity) as probe:
        files = {}
        for name, content in {"certificate": pair and pair.chain, "key": pair and pair.key}.items():
            if content:
                files[name] = folder / name
                files[name].write_bytes(content)
        probe.connect(authority=server and folder / "root.pem", **files)(b"", timeout=TIMEOUT_S)
    return onlooker.seen


@pytest.mark.parametrize("who", CALLERS)
def test_caller_with_a_certificate_is_described_as_by_grpcio(root, tmp_path, who):
    """Property by property."""
    (tmp_path / "root.pem").write_bytes(root.pem)
    pair, server = CALLERS[who](root), root.serve()
    ours, theirs = (describe(kind, server, tmp_path, root, pair) for kind in ("native", "grpcio"))
    assert ours == theirs


def test_caller_without_a_certificate_is_described_as_by_grpcio(root, tmp_path):
    """How the connection is guarded."""
    (tmp_path / "root.pem").write_bytes(root.pem)
    server = root.serve()
    assert describe("native", server, tmp_path) == describe("grpcio", server, tmp_path)


def test_caller_in_plain_text_is_described_as_by_grpcio(tmp_path):
    """Not at all."""
    assert describe("native", None, tmp_path) == describe("grpcio", None, tmp_path)
