"""The section `access` of a deployment file: what it means, and what is said when it cannot be."""

import json

import pytest

from service.access_file import read_access
from service.access_policy import Grant, Issuer, RemoteKeys, Role, TokenCondition
from service.deployment_file import DeploymentFileError, format_deployment, parse_deployment

KEYS = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "x": "AA", "y": "AA"}]}
MODELS = "models: {digits: {versions: {1: {weight: 1, endpoints: ['127.0.0.1:8001']}}}}\n"
ACCESS = """\
access:
  tokens:
    login:
      issuer: https://login.example.org/
      audiences: [sluice, gateway]
      jwks_file: keys.json
      claims: {subject: client_id, tenant: org, roles: [realm_access, roles]}
      clock_skew_s: 5
    partner:
      issuer: partner
      audiences: [sluice]
      jwks_uri: https://partner.example.org:8443/jwks?v=1
      jwks_ca: partner-ca.pem
      jwks_cache_s: 60
  roles:
    reader: {models: ["iris-*", digits], actions: [infer, metadata]}
    owner:
      models: ["*"]
      actions: [infer, load]
  grants:
  - {role: owner, certificates: ["spiffe://example.org/ann"]}
  - role: reader
    certificates: ["spiffe://example.org/bob"]
    token:
      issuer: login
      roles: [science]
      claims: {scope: infer, plan: [gold, silver]}
"""
FILE = MODELS + ACCESS


@pytest.fixture
def folder(tmp_path):
    """A folder with the keys that the file refers to."""
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    return tmp_path


def test_whole_section_is_read(folder):
    """Every field; keys in files are read, and paths are relative to the file's folder."""
    policy = parse_deployment(FILE, "x.yaml", folder).access
    login = {"subject": ("client_id",), "tenant": ("org",), "roles": ("realm_access", "roles"), "clock_skew_s": 5}
    remote = RemoteKeys("https://partner.example.org:8443/jwks?v=1", folder / "partner-ca.pem", 60)
    assert policy.issuers == {
        "login": Issuer(
            issuer="https://login.example.org/",
            audiences=("sluice", "gateway"),
            keys=json.dumps(KEYS, sort_keys=True),
            **login,
        ),
        "partner": Issuer(issuer="partner", audiences=("sluice",), keys=remote),
    }
    assert policy.roles == {
        "reader": Role(("iris-*", "digits"), ("infer", "metadata")),
        "owner": Role(("*",), ("infer", "load")),
    }
    claims = {("scope",): ("infer",), ("plan",): ("gold", "silver"), ("realm_access", "roles"): ("science",)}
    assert policy.grants == (
        Grant("owner", ("spiffe://example.org/ann",)),
        Grant("reader", ("spiffe://example.org/bob",), TokenCondition("login", claims)),
    )


def test_file_without_the_section_has_no_policy(tmp_path):
    """Then nobody is asked, and nothing is rendered for it."""
    assert parse_deployment(MODELS, "x.yaml", tmp_path).access is None
    (tmp_path / "x.yaml").write_text(MODELS)
    assert read_access(tmp_path / "x.yaml") is None


def test_formatted_section_is_read_as_the_same(folder, tmp_path_factory):
    """Keys of files are written in place, so that the files are needed no more."""
    read = parse_deployment(FILE, "x.yaml", folder)
    assert parse_deployment(format_deployment(read), "y.yaml", tmp_path_factory.mktemp("elsewhere")) == read


def test_service_reads_the_section_alone_and_needs_no_keys(tmp_path):
    """It verifies no signature; of the rest of the file it need not know anything."""
    file = tmp_path / "x.yaml"
    file.write_text("later: 1\n" + ACCESS)
    policy = read_access(file)
    assert [issuer.keys for issuer in policy.issuers.values()] == [None, None]
    assert policy.roles["owner"] == Role(("*",), ("infer", "load"))
    file.write_text(ACCESS.replace("role: owner", "role: boss"))
    with pytest.raises(DeploymentFileError, match=r"x\.yaml:21: grant: expected one of the roles reader, owner"):
        read_access(file)
    file.write_text(ACCESS.replace("grants:", "grant:"))
    with pytest.raises(DeploymentFileError, match=r"x\.yaml:20: access\.grant: unknown field; did you mean 'grants'"):
        read_access(file)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "roles: [science]",
            "rolls: [science]",
            "27: access.grants.1.token.rolls: unknown field; did you mean 'roles'?",
        ),
        ("actions: [infer, metadata]", "actions: [infre]", "17: access.roles.reader.actions.0: expected one of infer"),
        ("actions: [infer, load]", "actions: []", "20: access.roles.owner.actions: expected a list of one or more"),
        ('["iris-*", digits]', '["i*s"]', "17: access.roles.reader.models.0: expected a model's name"),
        (
            "[infer, metadata]",
            "[traffic]",
            "17: role 'reader': expected '*' among its models, for 'traffic' is for all",
        ),
        ("    reader:", "    'read er':", "17: access.roles.read er: expected a name of at most 64"),
        ("    partner:", "    part.ner:", "10: access.tokens.part.ner: expected a name of at most 64"),
        ("role: owner", "role: boss", "22: grant: expected one of the roles reader, owner, given 'boss'"),
        ("issuer: login", "issuer: logout", "26: grant: expected one of the issuers login, partner, given 'logout'"),
        (
            "issuer: partner",
            "issuer: https://login.example.org/",
            "11: issuer 'https://login.example.org/': expected one",
        ),
        (', certificates: ["spiffe://example.org/ann"]', "", "22: grant: expected certificates, a token or both"),
        ("spiffe://example.org/ann", "ann", "22: access.grants.0.certificates.0: expected a URI"),
        ("      jwks_ca: partner-ca.pem\n", "", "10: jwks_uri: expected 'jwks_ca' beside it"),
        ("https://partner", "http://partner", "13: access.tokens.partner.jwks_uri: expected a URL, as in https"),
        ("      jwks_file: keys.json\n", "", "4: keys: expected one of jwks_file, jwks, jwks_uri, given none"),
        ("jwks_file: keys.json", "jwks_uri: https://x/\n      jwks: {keys: []}", "4: keys: expected one of"),
        ("jwks_file: keys.json", "jwks_file: none.json", "7: access.tokens.login.jwks_file: [Errno 2] No such file"),
        ("jwks_file: keys.json", "jwks: {keys: []}", "7: access.tokens.login.jwks: expected a JSON Web Key Set"),
        (
            "jwks_file: keys.json",
            "jwks: {keys: [{kty: oct, k: AA}]}",
            "7: access.tokens.login.jwks: key 0: expected as",
        ),
        (
            "jwks_file: keys.json",
            "jwks: {keys: [{kty: EC, d: AA}]}",
            "7: access.tokens.login.jwks: key 0: expected a pub",
        ),
        ("jwks_file: keys.json", "jwks: {keys: [7]}", "7: access.tokens.login.jwks: key 0: expected an object"),
        (
            "jwks_file: keys.json",
            "jwks: {keys: [{kty: EC, kid: a}, {kty: RSA, kid: a}]}",
            "7: access.tokens.login.jwks: expected each `kid` once, given a twice",
        ),
        (
            "clock_skew_s: 5",
            "clock_skew_s: 0",
            "9: access.tokens.login.clock_skew_s: expected a whole number from 1",
        ),
        ("plan: [gold, silver]", "plan: 7", "28: access.grants.1.token.claims.plan: expected a text, or a list of"),
        ("[realm_access, roles]", "plan", "25: claim 'plan': expected once, given as 'roles' and in 'claims'"),
    ],
)
def test_section_that_cannot_be_is_refused_with_line_and_field(folder, old, new, problem):
    """As every other part of the file."""
    assert FILE.count(old) == 1
    with pytest.raises(DeploymentFileError) as refusal:
        parse_deployment(FILE.replace(old, new), "deploy.yaml", folder)
    lines = str(refusal.value).splitlines()
    assert any(line.startswith(f"deploy.yaml:{problem}") for line in lines), lines


def test_file_of_keys_that_is_none_is_refused(folder):
    """Be it no JSON or no text."""
    for content in (b"-----BEGIN PUBLIC KEY-----", b"\xff\xfe"):
        (folder / "keys.json").write_bytes(content)
        with pytest.raises(DeploymentFileError, match=r"^x\.yaml:7: access\.tokens\.login\.jwks_file: "):
            parse_deployment(FILE, "x.yaml", folder)
