"""The policy in a real Envoy: each call is allowed or refused as the policy decides, with a fitting status."""

import base64
import contextlib
import itertools
import json

import grpc
import pytest
from access_rig import ANN, BOB, DUO, LOGIN, NOBODY, PARTNER, start_access_rig

from service.access_calls import CALLS
from service.access_policy import Identity
from service.admin import AdminError, OperatorListener
from service.pb import open_inference_pb2 as pb
from service.running_gateway import RunningGateway

OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
PREFIX = "/inference.GRPCInferenceService/"
SCIENCE = {"iss": LOGIN, "realm": {"roles": ["science"]}}
MATH = {"iss": LOGIN, "realm": {"roles": "math"}}
IDENTITIES = {
    "owner": Identity((ANN,)),
    "operator": Identity((BOB,)),
    "watcher": Identity((DUO,)),
    "nobody": Identity((NOBODY,)),
    "science": Identity((NOBODY,), SCIENCE),
    "math": Identity((DUO,), MATH),
    "no role": Identity((NOBODY,), {"iss": LOGIN, "realm": {"roles": ["sciences"]}, "roles": ["science"]}),
    "owner with a token": Identity((ANN,), {"iss": LOGIN}),
    "gold": Identity((NOBODY,), {"iss": PARTNER, "scope": "read infer", "plan": ["silver", "gold"]}),
    "silver": Identity((NOBODY,), {"iss": PARTNER, "scope": "read infer", "plan": "silver"}),
    "science of another": Identity((NOBODY,), {"iss": PARTNER, "realm": {"roles": ["science"]}}),
}
MODELS = ("digits", "iris-2", "iris", "letters", "")


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """One gateway for all of these tests."""
    with start_access_rig(tmp_path_factory.mktemp("access")) as access:
        yield access


def make_message(method, model, version=""):
    """The request of a method for a model, empty where it names none."""
    call = CALLS[PREFIX + method]
    message = getattr(pb, f"{'ModelInfer' if method == 'ModelStreamInfer' else method}Request")()
    for field, value in ((call.model_field, model), (call.version_field, version)):
        if field:
            setattr(message, field, value)
    return message


def decide(policy, identity, method, model, version=""):
    """What the policy says to a call; what is allowed may still be of a model that is not here."""
    call = CALLS[PREFIX + method]
    wanted = [call.action] if call.action else []
    wanted += ["pin"] if call.action == "infer" and version else []
    asked = (model or None) if call.model_field else None
    if all(policy.decide(identity, action, asked).allowed for action in wanted):
        # The gateway routes no inference of no model.
        return {INVALID} if call.action == "infer" and not model else {OK, NOT_FOUND}
    return {UNAUTHENTICATED if identity.claims is None else DENIED}


@pytest.mark.parametrize("who", IDENTITIES)
def test_gateway_decides_as_the_policy_does(access, who):
    """Every method, on models that the roles name, on others and on none."""
    identity = IDENTITIES[who]
    methods = [path.removeprefix(PREFIX) for path in CALLS if path.startswith(PREFIX)]
    for method, model in itertools.product(methods, MODELS):
        if method == "ModelStreamInfer" or (not CALLS[PREFIX + method].model_field and model):
            continue
        status, text = access.ask(identity, method, make_message(method, model))
        assert status in decide(access.policy, identity, method, model), (method, model, text)


@pytest.mark.parametrize("who", IDENTITIES)
def test_version_is_chosen_by_who_may_pin(access, who):
    """By the message or by the header."""
    identity = IDENTITIES[who]
    for model in ("digits", "iris-2"):
        expected = decide(access.policy, identity, "ModelInfer", model, "2")
        by_message, text = access.ask(identity, "ModelInfer", make_message("ModelInfer", model, "2"))
        assert by_message in expected, text
        header = [("sluice-version", "2")]
        by_header, text = access.ask(identity, "ModelInfer", make_message("ModelInfer", model), metadata=header)
        assert by_header in expected, text


def test_stream_is_decided_by_its_first_message(access):
    """As a single call is."""
    request = make_message("ModelStreamInfer", "digits").SerializeToString()
    for identity, expected in ((IDENTITIES["science"], OK), (IDENTITIES["silver"], DENIED)):
        stream = access.connect(NOBODY).stream_stream(PREFIX + "ModelStreamInfer")
        metadata = [("authorization", f"Bearer {access.sign(identity.claims)}")]
        calls = stream(iter([request] * 3), metadata=metadata, timeout=60)
        answers = []
        with contextlib.suppress(grpc.RpcError):
            answers.extend(calls)
        assert (calls.code(), len(answers)) == (expected, 3 if expected is OK else 0)


def test_service_is_told_the_claims_and_not_the_token(access):
    """In the one header that both have agreed on."""
    assert access.infer(access.sign({**SCIENCE, "tenant": "acme"}), metadata=[("nonce", "told")])[0] == OK
    calls = [call for backend in access.rig.backends.values() for call in backend.calls]
    (seen,) = (metadata for _, metadata, _ in calls if metadata.get("nonce") == "told")
    told = json.loads(base64.urlsafe_b64decode(seen["sluice-token"] + "=="))
    assert (told["sub"], told["tenant"], told["realm"]) == ("carol", "acme", {"roles": ["science"]})
    assert "authorization" not in seen


def test_refusal_says_what_was_asked_and_what_is_expected(access):
    """So that whoever gets it knows what to do."""
    status, text = access.infer(model="digits", version="2")
    assert status == UNAUTHENTICATED
    assert "ModelInfer" in text
    assert '"digits"' in text
    assert NOBODY in text
    assert f"a token of {LOGIN} for sluice, or of {PARTNER} for sluice-partners" in text
    status, text = access.infer(access.sign({"sub": "dave"}))
    assert status == DENIED
    assert "subject dave" in text
    assert "sluice access check" in text
    status, text = access.infer("no.such.token")
    assert status == UNAUTHENTICATED
    assert text.startswith("token: Jwt ")


def test_refusal_of_a_long_name_is_short(access):
    """What a client writes is not sent back to it whole."""
    status, text = access.infer(access.sign({"sub": "x" * 5000}), model="y" * 100_000)
    assert status == DENIED
    assert len(text) < 2000


def test_signature_is_verified_once(access):
    """What it costs is paid by a token's first call."""
    token = access.sign({**SCIENCE, "sub": "once"})
    hits = "http.gateway.jwt_authn.jwt_cache_hit"
    gateway = RunningGateway(access.rig.admin)
    assert access.infer(token)[0] == OK
    before = gateway.read_numbers([hits])[hits]
    assert {access.infer(token)[0] for _ in range(20)} == {OK}
    assert gateway.read_numbers([hits])[hits] == before + 20


def test_method_that_is_not_known_is_nobodys(access):
    """Nor one with more behind its name, whatever the roles."""
    for method in ("ModelTrain", "ModelInfer?model=digits", "modelinfer", "ModelInfer/", "../x/ModelInfer"):
        assert access.send(ANN, method)[0] in (UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT), method


def open_operator(access, uri):
    """The operator listener with a certificate by its URI."""
    access.issue(uri)
    folder, name = access.rig.certificates, uri.rpartition("/")[2]
    return OperatorListener(
        access.rig.deployment.operator, folder / "gateway-ca.pem", folder / f"{name}.pem", folder / f"{name}.key"
    )


SHIFT = "/runtime_modify?sluice.weights.digits.digits%401=90&sluice.weights.digits.digits%402=10"


def test_operator_listener_opens_to_roles_beside_its_list(access):
    """Who has `admin` may read, who has `traffic` may shift."""
    for operator in (access.rig.operator, open_operator(access, BOB)):
        assert operator.request("GET", "/ready")
        assert operator.request("POST", SHIFT)
    watcher = open_operator(access, DUO)
    assert watcher.request("GET", "/stats")
    with pytest.raises(AdminError, match="403"):
        watcher.request("POST", SHIFT)
    for method, target in (("GET", "/ready"), ("POST", SHIFT)):
        with pytest.raises(AdminError, match="403"):
            open_operator(access, ANN).request(method, target)
