"""`sluice token`: keys and tokens for development."""

import base64
import json
import stat
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from typer.testing import CliRunner

from service.cli import app
from service.key_set import parse_key_set
from service.token_keys import load_key, read_claims


def run(*arguments):
    """Run the command."""
    return CliRunner().invoke(app, ["token", *map(str, arguments)])


@pytest.fixture(params=["ES256", "RS256"])
def key(tmp_path, request):
    """A key's file."""
    path = tmp_path / "key.pem"
    assert run("key", path, "--algorithm", request.param).exit_code == 0
    return path


def verify(token, key):
    """Raise unless the key has signed a token, by an implementation that is not the one that signs."""
    content, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    public = load_key(key).public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        halves = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
        public.verify(encode_dss_signature(*halves), content.encode(), ec.ECDSA(hashes.SHA256()))
    else:
        public.verify(raw, content.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_key_is_its_owners_alone_and_never_replaced(key):
    """Tokens that it has signed may be in use."""
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    result = run("key", key)
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert key.read_bytes() == before


def test_set_of_keys_is_public_and_can_be_deployed(key):
    """It names each key by its digest, the same each time."""
    result = run("jwks", key)
    assert result.stdout == run("jwks", key).stdout
    (public,) = json.loads(parse_key_set(result.stdout))["keys"]
    assert len(public["kid"]) == 43
    assert public["alg"] == ("ES256" if public["kty"] == "EC" else "RS256")


def test_token_is_signed_and_says_what_was_asked(key, tmp_path):
    """The key's name is in its head; what is asked as claim replaces what is made."""
    output = tmp_path / "token"
    options = ("--issuer", "https://dev/", "--audience", "sluice", "--claims", '{"sub": "ann", "roles": ["r"]}')
    result = run("make", key, *options, "--for", "10m", "--output", output)
    assert result.exit_code == 0
    assert "for development only" in result.stderr
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    token = output.read_text().strip()
    verify(token, key)
    claims = read_claims(token)
    assert (claims["iss"], claims["aud"], claims["sub"], claims["roles"]) == ("https://dev/", "sluice", "ann", ["r"])
    assert claims["exp"] == claims["iat"] + 600
    assert abs(claims["iat"] - time.time()) < 60
    head = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert head["kid"] == json.loads(run("jwks", key).stdout)["keys"][0]["kid"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("key", "k.pem", "--algorithm", "HS256"), "expected one of ES256, RS256, given 'HS256'"),
        (("jwks", "no.pem"), "no.pem: expected a private key in PEM"),
        (("make", "no.pem", "--issuer", "a", "--audience", "b"), "no.pem: expected a private key"),
        (("make", "no.pem", "--issuer", "a", "--audience", "b", "--for", "soon"), "--for: expected a duration"),
        (("make", "{key}", "--issuer", "a", "--audience", "b", "--claims", "["), "--claims: expected JSON"),
        (("make", "{key}", "--issuer", "a", "--audience", "b", "--claims", "[]"), "--claims: expected an object"),
        (("key", "no/such/folder/k.pem"), "No such file or directory"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, arguments, words):
    """With the reason."""
    monkeypatch.chdir(tmp_path)
    assert run("key", "key.pem").exit_code == 0
    result = run(*(argument.format(key="key.pem") for argument in arguments))
    assert result.exit_code == 1
    assert words in result.stderr


def test_key_of_another_kind_is_refused(tmp_path):
    """Only what one of the algorithms can sign with."""
    from cryptography.hazmat.primitives import serialization

    path = tmp_path / "p384.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(ec.generate_private_key(ec.SECP384R1()).private_bytes(*form))
    assert "expected a key of RSA, or of EC on P-256" in run("jwks", path).stderr
