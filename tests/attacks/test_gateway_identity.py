"""Who is not who they say, at a real gateway: forged tokens, borrowed certificates, headers that only it may set."""

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from service.access_policy import OPERATOR_ACTIONS
from service.pb import open_inference_pb2 as pb
from service.token_keys import describe_key, encode_base64, sign_token
from tests.authorities import Authority
from tests.service.access_rig import ANN, LOGIN, NOBODY, PARTNER, make_issuer_key, start_access_rig

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
SCIENCE = {"realm": {"roles": ["science"]}}
SKEW_S = 30


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """One gateway for all of these tests."""
    with start_access_rig(tmp_path_factory.mktemp("identity")) as access:
        access.foreign = make_issuer_key(tmp_path_factory.mktemp("foreign"), "foreign", "ES256")
        yield access


@pytest.fixture(autouse=True)
def bystander(access):
    """Somebody who may, before and after each attack."""
    yield
    assert access.infer(access.sign(SCIENCE))[0] == OK


def count_calls(access):
    """How many calls have come through."""
    return sum(len(backend.calls) for backend in access.rig.backends.values())


def forge(access, head, claims=SCIENCE, sign=lambda content: b""):
    """A token of an allowed subject with any head, and what `sign` makes of the rest."""
    whole = {"iss": LOGIN, "aud": "sluice", "sub": "carol", "exp": int(time.time()) + 3600, **claims}
    content = ".".join(encode_base64(json.dumps(part).encode()) for part in (head, whole))
    return f"{content}.{encode_base64(sign(content.encode()))}"


def forge_by_hmac(access, encoding):
    """A token that takes the issuer's public key, which everybody has, for a shared secret."""
    public = access.partner.public_key()
    if encoding == "jwk":
        secret = json.dumps(describe_key(access.partner)).encode()
    else:
        secret = public.public_bytes(
            getattr(serialization.Encoding, encoding), serialization.PublicFormat.SubjectPublicKeyInfo
        )
    head = {"alg": "HS256", "kid": describe_key(access.partner)["kid"]}
    claims = {"iss": PARTNER, "aud": "sluice-partners", "scope": "infer", "plan": "gold"}
    return forge(access, head, claims, lambda content: hmac.digest(secret, content, hashlib.sha256))


def alter(token, claims):
    """A token with other claims under the signature that it has."""
    head, _, signature = token.split(".")
    return f"{head}.{encode_base64(json.dumps(claims).encode())}.{signature}"


def read_kid(access):
    """The name of the first issuer's key."""
    return describe_key(access.login)["kid"]


NOW = time.time
TOKENS = {
    "of alg none": lambda access: forge(access, {"alg": "none"}),
    "of alg None and a kid": lambda access: forge(access, {"alg": "None", "kid": read_kid(access)}),
    "without a signature": lambda access: forge(access, {"alg": "ES256", "kid": read_kid(access)}),
    "of a foreign key": lambda access: access.sign(SCIENCE, access.foreign),
    "of a foreign key by the right kid": lambda access: forge(
        access,
        {"alg": "ES256", "kid": read_kid(access)},
        sign=lambda content: base64.urlsafe_b64decode(sign_token(access.foreign, {}).split(".")[2] + "=="),
    ),
    "of the other issuer's key": lambda access: access.sign({"iss": LOGIN, **SCIENCE}, access.partner),
    "of a kid that is not known": lambda access: (
        forge(access, {"alg": "ES256", "kid": "../../keys"}).rpartition(".")[0]
        + "."
        + access.sign(SCIENCE).split(".")[2]
    ),
    "with a key of its own": lambda access: forge(
        access,
        {"alg": "ES256", "jwk": describe_key(access.foreign)},
        sign=lambda content: base64.urlsafe_b64decode(sign_token(access.foreign, {}).split(".")[2] + "=="),
    ),
    "that takes a public key for a secret, PEM": lambda access: forge_by_hmac(access, "PEM"),
    "that takes a public key for a secret, DER": lambda access: forge_by_hmac(access, "DER"),
    "that takes a public key for a secret, JWK": lambda access: forge_by_hmac(access, "jwk"),
    "with other claims": lambda access: alter(access.sign({}), {"iss": LOGIN, "aud": "sluice", **SCIENCE}),
    "that has expired": lambda access: access.sign({**SCIENCE, "exp": int(NOW()) - SKEW_S - 60}),
    "that is not valid yet": lambda access: access.sign({**SCIENCE, "nbf": int(NOW()) + SKEW_S + 60}),
    "that never expires": lambda access: sign_token(access.login, {"iss": LOGIN, "aud": "sluice", **SCIENCE}),
    "for another audience": lambda access: access.sign({**SCIENCE, "aud": "another"}),
    "for nobody": lambda access: access.sign({**SCIENCE, "aud": []}),
    "for the other issuer's audience": lambda access: access.sign({**SCIENCE, "aud": "sluice-partners"}),
    "of an unknown issuer": lambda access: access.sign({**SCIENCE, "iss": "https://evil/", "aud": "sluice"}),
    "of no issuer": lambda access: sign_token(access.login, {"aud": "sluice", "exp": int(NOW()) + 60, **SCIENCE}),
    "that is a word": lambda access: "token",
    "that is empty": lambda access: "",
    "of dots": lambda access: "..",
    "of many parts": lambda access: access.sign(SCIENCE) + ".AAAA.AAAA",
    "of bad base64": lambda access: "!!!." + access.sign(SCIENCE).partition(".")[2],
}


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("uri", [NOBODY, ANN], ids=["nobody", "who needs none"])
def test_token_that_is_not_valid_is_refused(access, kind, uri):
    """Whatever is wrong with it, and whatever the certificate alone would be allowed."""
    before = count_calls(access)
    status, text = access.infer(TOKENS[kind](access), uri=uri)
    assert status == UNAUTHENTICATED, text
    assert f"of {LOGIN} for sluice" in text
    assert count_calls(access) == before


def test_call_without_a_token_is_refused(access):
    """It is said what is missing."""
    status, text = access.infer()
    assert status == UNAUTHENTICATED
    assert "without a token" in text


def test_token_that_was_accepted_is_refused_once_it_has_expired(access):
    """What is remembered of a token is its signature, not its time."""
    token = access.sign({**SCIENCE, "exp": int(time.time()) - SKEW_S + 4})
    assert access.infer(token)[0] == OK
    until = time.monotonic() + 60
    while (answer := access.infer(token))[0] == OK:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert answer[0] == UNAUTHENTICATED
    assert "expired" in answer[1]


@pytest.mark.parametrize(("size", "expected"), [(3_000, (OK, UNAUTHENTICATED)), (100_000, (UNAVAILABLE, UNAVAILABLE))])
def test_huge_token_costs_its_sender_the_connection(access, size, expected):
    """One of a few thousand bytes is as any other; one beyond the limit of headers is read by nobody."""
    tokens = [access.sign({**SCIENCE, "padding": "x" * size}, key) for key in (access.login, access.foreign)]
    before = count_calls(access)
    with access.rig.connect("nobody") as channel:
        assert tuple(access.send_on(channel, token)[0] for token in tokens) == expected
    assert count_calls(access) == before + expected.count(OK)


def test_two_tokens_are_none(access):
    """Nobody chooses between two authorization headers."""
    good, bad, other = access.sign(SCIENCE), access.sign(SCIENCE, access.foreign), access.sign({"sub": "dave"})
    for pair in ((bad, good), (other, good), (good, bad), (good, good)):
        headers = [("authorization", f"Bearer {token}") for token in pair]
        status, text = access.infer(metadata=headers, uri=ANN)
        assert status == UNAUTHENTICATED, text


@pytest.mark.parametrize("header", ["sluice-token", "x-jwt-payload", "x-forwarded-client-cert"])
def test_identity_in_a_clients_header_is_nothing(access, header):
    """The gateway alone says who calls."""
    claims = encode_base64(json.dumps({"iss": LOGIN, "sub": "eve", **SCIENCE}).encode())
    value = f"URI={ANN}" if header == "x-forwarded-client-cert" else claims
    assert access.infer(metadata=[(header, value)])[0] == UNAUTHENTICATED
    assert access.infer(access.sign({}), metadata=[(header, value)])[0] == DENIED
    assert access.infer(uri=ANN, metadata=[(header, value), ("nonce", header)])[0] == OK
    calls = [call for backend in access.rig.backends.values() for call in backend.calls]
    (seen,) = (metadata for _, metadata, _ in calls if metadata.get("nonce") == header)
    assert "sluice-token" not in seen
    assert seen["x-forwarded-client-cert"].count("URI=") == 1


@pytest.mark.parametrize("scheme", ["Basic ", "bearer ", "Bearer", ""])
def test_token_under_another_scheme_is_none(access, scheme):
    """And does not reach a server either."""
    headers = [("authorization", scheme + access.sign(SCIENCE))]
    assert access.infer(metadata=headers)[0] == UNAUTHENTICATED
    assert access.infer(uri=ANN, metadata=[*headers, ("nonce", f"scheme{scheme}")])[0] == OK
    calls = [call for backend in access.rig.backends.values() for call in backend.calls]
    (seen,) = (metadata for _, metadata, _ in calls if metadata.get("nonce") == f"scheme{scheme}")
    assert "authorization" not in seen


def test_token_in_the_query_is_none(access):
    """Tokens there would be in every log."""
    status, _ = access.send(ANN, f"ModelInfer?access_token={access.sign(SCIENCE)}", pb.ModelInferRequest())
    assert status == UNAUTHENTICATED


@pytest.mark.parametrize("kind", ["none", "foreign", "expired", "not yet valid", "for servers"])
def test_certificate_that_is_not_valid_opens_nothing(access, tmp_path, kind):
    """Not with the best of tokens."""
    authority, hour = access.authority, timedelta(hours=1)
    pair = {
        "none": lambda: None,
        "foreign": lambda: Authority("clients").issue(f"URI:{ANN}"),
        "expired": lambda: authority.issue(f"URI:{ANN}", begins=-2 * hour, ends=-hour / 60),
        "not yet valid": lambda: authority.issue(f"URI:{ANN}", begins=hour, ends=2 * hour),
        "for servers": lambda: authority.serve(),
    }[kind]()
    if pair:
        (tmp_path / "peer.pem").write_bytes(pair.chain)
        (tmp_path / "peer.key").write_bytes(pair.key)
    before = count_calls(access)
    with access.rig.connect("peer" if pair else None, tmp_path) as channel:
        assert access.send_on(channel, access.sign(SCIENCE))[0] == UNAVAILABLE
    assert count_calls(access) == before


@pytest.mark.parametrize(
    "names",
    [(), (f"DNS:{ANN}",), (f"EMAIL:{ANN}",), (f"URI:{ANN}/",), (f"URI:{ANN}x",), (f"URI:{ANN.upper()}",)],
    ids=["as common name", "as DNS name", "as address", "with a slash", "and more", "in capitals"],
)
def test_certificate_with_an_allowed_name_in_the_wrong_place_is_nobodys(access, tmp_path, names):
    """Only a URI name counts, and that exactly."""
    pair = access.authority.issue(*names, common="ann" if names else ANN[:64])
    (tmp_path / "peer.pem").write_bytes(pair.chain)
    (tmp_path / "peer.key").write_bytes(pair.key)
    with access.rig.connect("peer", tmp_path) as channel:
        assert access.send_on(channel)[0] == UNAUTHENTICATED


def test_model_that_is_named_twice_is_the_last_one(access):
    """As every server reads such a message: the policy must not be shown another model than the server."""
    digits, letters = (pb.ModelInferRequest(model_name=name).SerializeToString() for name in ("digits", "letters"))
    token = [("authorization", f"Bearer {access.sign(SCIENCE)}")]
    assert access.send(NOBODY, "ModelInfer", digits + letters, token)[0] == DENIED
    assert access.send(NOBODY, "ModelInfer", letters + digits, token)[0] == OK


@pytest.mark.parametrize("message", [b"\xff\xff", b"\x0a\x05dig", b"\x0a\xff\xff\xff\xff\x0f"])
def test_message_that_cannot_be_read_names_no_model(access, message):
    """What is not known to be allowed is not."""
    token = [("authorization", f"Bearer {access.sign(SCIENCE)}")]
    assert access.send(NOBODY, "ModelInfer", message, token)[0] in (DENIED, grpc.StatusCode.INVALID_ARGUMENT)


def test_policy_of_this_gateway_leaves_tokens_out_of_the_operators_door(access):
    """A token with every role there is opens the operator listener to nobody."""
    from service.admin import AdminError, OperatorListener

    access.connect(NOBODY)
    folder = access.rig.certificates
    files = (folder / "gateway-ca.pem", folder / "nobody.pem", folder / "nobody.key")
    assert any(action in role.actions for role in access.policy.roles.values() for action in OPERATOR_ACTIONS)
    with pytest.raises(AdminError, match="403"):
        OperatorListener(access.rig.deployment.operator, *files).request("GET", "/ready")
