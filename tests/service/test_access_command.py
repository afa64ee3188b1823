"""`sluice access check`: what it says, and that a real Envoy does the same."""

import itertools
import json

import grpc
import pytest
from access_rig import ANN, BOB, DUO, GRANTS, LOGIN, NOBODY, PARTNER, ROLES, start_access_rig
from typer.testing import CliRunner

from service.access_explanation import explain
from service.access_policy import ACTIONS, Identity
from service.admin import AdminError, OperatorListener
from service.cli import app
from service.pb import open_inference_pb2 as pb

OWN_OPERATOR = "spiffe://sluice.local/operator/demo"
IDENTITIES = (
    *(Identity((uri,)) for uri in (ANN, BOB, DUO, NOBODY, OWN_OPERATOR)),
    Identity((DUO,), {"iss": LOGIN, "realm": {"roles": "math"}}),
    Identity((BOB,), {"iss": LOGIN, "realm": {"roles": ["science"]}}),
    Identity((NOBODY,), {"iss": PARTNER, "scope": "read infer", "plan": "gold"}),
    Identity((ANN,), {"iss": "https://unknown.example.org/"}),
    Identity((ANN,), {"iss": LOGIN, "aud": "another"}),
    Identity((ANN,), {"iss": LOGIN, "exp": 1000}),
)
# What Envoy cannot tell apart: the parameters of a load are the service's to look at.
ACTIONS_AT_GATEWAY = tuple(action for action in ACTIONS if action != "load_override")
MESSAGES = {
    "infer": ("ModelInfer", lambda model: pb.ModelInferRequest(model_name=model)),
    "pin": ("ModelInfer", lambda model: pb.ModelInferRequest(model_name=model, model_version="1")),
    "metadata": ("ModelMetadata", lambda model: pb.ModelMetadataRequest(name=model)),
    "statistics": ("ModelStatistics", lambda model: pb.ModelStatisticsRequest(name=model)),
    "load": ("RepositoryModelLoad", lambda model: pb.RepositoryModelLoadRequest(model_name=model)),
    "shared_memory": ("SystemSharedMemoryStatus", lambda model: pb.SystemSharedMemoryStatusRequest()),
    "trace_settings": ("TraceSetting", lambda model: pb.TraceSettingRequest(model_name=model)),
    "log_settings": ("LogSettings", lambda model: pb.LogSettingsRequest()),
}
OPERATOR_CALLS = {
    "admin": ("GET", "/ready"),
    "traffic": ("POST", "/runtime_modify?sluice.weights.digits.digits%401=90"),
}


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """One gateway for all of these tests."""
    with start_access_rig(tmp_path_factory.mktemp("explained")) as access:
        access.file = access.write_file(tmp_path_factory.mktemp("file") / "deployment.yaml")
        yield access


def run(access, *arguments):
    """Run the command on the rig's deployment."""
    return CliRunner().invoke(app, ["access", "check", str(access.file), *arguments])


def is_allowed_by_envoy(access, identity, action, model):
    """What happens to a call for which the action is needed."""
    if action in OPERATOR_CALLS:
        return is_operator(access, identity.uris[0], *OPERATOR_CALLS[action])
    method, make = MESSAGES[action]
    status, text = access.ask(identity, method, make(model or ""))
    if status in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND):
        return True
    if (method, model, status) == ("ModelInfer", None, grpc.StatusCode.INVALID_ARGUMENT):
        # It names no model, which is looked at once the policy has let it in.
        return True
    assert status in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED), text
    return False


def is_operator(access, uri, method, target):
    """Whether the operator listener does something for a certificate."""
    access.issue(uri)
    folder, name = access.rig.certificates, uri.rpartition("/")[2]
    files = (folder / "gateway-ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
    try:
        OperatorListener(access.rig.deployment.operator, *files).request(method, target)
    except AdminError as error:
        if " 403 " in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize("identity", IDENTITIES, ids=str)
def test_explanation_and_envoy_agree(access, identity):
    """Over every action and every kind of model."""
    for action, model in itertools.product(ACTIONS_AT_GATEWAY, ("digits", "iris-1", "letters", None)):
        if model is not None and action in (*OPERATOR_CALLS, "shared_memory", "log_settings"):
            continue
        explained = explain(access.rig.deployment, identity, action, model, lambda path: 1)
        assert is_allowed_by_envoy(access, identity, action, model) == explained.allowed, (action, model, explained)


def find_line(access, text):
    """The number of the line that holds a text."""
    lines = access.file.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_allowed_call_is_explained_by_role_grant_and_line(access):
    """The exit code is 0."""
    claims = json.dumps({"iss": LOGIN, "sub": "carol", "tenant": "acme", "realm": {"roles": ["math"]}})
    result = run(access, "--as", DUO, "--claims", claims, "--model", "digits", "--action", "pin")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"certificate: {DUO}"
    assert lines[2] == "subject: carol, tenant: acme"
    assert any(line.startswith("role: pinner, by certificate") and "realm.roles math" in line for line in lines)
    for line, role, action in ((lines[-2], "reader", "infer"), (lines[-1], "pinner", "pin")):
        where = find_line(access, f"    {role}:")
        assert line == f"allowed: role {role!r} allows {action} on model 'digits' (line {where})"


def test_denied_call_is_explained(access):
    """The exit code is 1."""
    result = run(access, "--as", DUO, "--model", "digits", "--action", "infer")
    assert result.exit_code == 1
    expected = "denied: infer on model 'digits': allowed by no role of the caller, who has watcher"
    assert result.stdout.splitlines()[-1] == expected


def test_token_of_a_file_is_shown_as_unverified(access, tmp_path):
    """And refused for what can be seen without a key."""
    file = tmp_path / "token"
    file.write_text(access.sign({"realm": {"roles": ["science"]}}))
    result = run(access, "--token", str(file), "--model", "digits", "--action", "infer")
    assert result.exit_code == 0
    assert "unverified" in result.stdout.splitlines()[0]
    for claims, words in (
        ({"exp": 1000}, "the token has expired"),
        ({"nbf": 2**40}, "the token is not valid yet"),
        ({"exp": "soon"}, "the token's times are not numbers"),
        ({"aud": 7}, "the token's audience is 7"),
        ({"aud": ["a", "b"]}, "the token's audience is ['a', 'b'], expected one of sluice"),
        ({"iss": "https://other/"}, "the token's issuer is 'https://other/'"),
    ):
        file.write_text(access.sign(claims))
        result = run(access, "--as", ANN, "--token", str(file), "--model", "digits", "--action", "infer")
        assert result.exit_code == 1
        assert words in result.stdout.splitlines()[-1]


def test_operators_list_and_roles_are_both_looked_at(access):
    """By certificate alone."""
    assert "is among gateway.operators" in run(access, "--as", OWN_OPERATOR, "--action", "traffic").stdout
    assert run(access, "--as", BOB, "--action", "traffic").exit_code == 0
    result = run(access, "--as", NOBODY, "--claims", json.dumps({"iss": LOGIN}), "--action", "admin")
    assert result.exit_code == 1
    assert "the operator listener looks at no token" in result.stdout


def test_file_without_the_section_allows_all_but_operators_work(access, tmp_path):
    """As the gateway then does."""
    file = tmp_path / "open.yaml"
    file.write_text("models: {digits: {versions: {1: {weight: 1, endpoints: ['127.0.0.1:8001']}}}}")
    for action, code in (("infer", 0), ("log_settings", 0), ("traffic", 1)):
        result = CliRunner().invoke(app, ["access", "check", str(file), "--as", ANN, "--action", action])
        assert result.exit_code == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--action", "fly"), "--action: expected one of infer, pin"),
        (("--action", "infer", "--claims", "{"), "--claims: expected JSON"),
        (("--action", "infer", "--claims", "[]"), "--claims: expected an object"),
        (("--action", "infer", "--claims", "{}", "--token", "x"), "expected --claims or --token, given both"),
        (("--action", "infer", "--token", "no-such-file"), "no-such-file"),
    ],
)
def test_what_cannot_be_found_out_exits_2(access, arguments, words):
    """With the reason."""
    result = run(access, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_table_covers_every_role_and_grant(access):
    """Or the agreement above would say little."""
    held = {role for identity in IDENTITIES for role in access.policy.roles_of(identity)}
    met = {place for identity in IDENTITIES for place, _ in access.policy.grants_of(identity)}
    assert (held, met) == (set(ROLES), set(range(len(GRANTS))))
