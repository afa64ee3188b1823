"""service.deployment_file: what operators write, and what they are told when it cannot be."""

import json

import jsonschema
import pytest

from service.deployment import DEFAULT_MAX_MESSAGE_BYTES, Deployment, Endpoint, Version
from service.deployment_file import (
    DeploymentFileError,
    format_deployment,
    load_schema,
    parse_deployment,
    read_deployment,
)
from service.localities import Locality
from service.model_routing import CallKey, Routing, Shadow
from service.plan import GATEWAY, OPERATOR

WHOLE = """\
gateway:
  listen: 127.0.0.2:443
  operator: "[::1]:9444"
  operators: ["spiffe://example.org/ann"]
  max_message_bytes: 4096
certificates: /certs
service_identity: spiffe://example.org/service
models:
  digits:
    versions:
      1: {weight: 90, endpoints: ["127.0.0.1:8001", "[::1]:8001"]}
      20:
        weight: 10
        endpoints: ["127.0.0.1:8002"]
"""
ROUTED = """\
gateway: {region: eu, zone: eu-1}
models:
  digits:
    versions:
      1:
        weight: 90
        endpoints: [{address: "127.0.0.1:8001", region: eu, zone: eu-1}, {address: "127.0.0.1:8002", region: us}]
      2: {weight: 10, endpoints: ["127.0.0.1:8001"]}
      3: {weight: 0, endpoints: ["127.0.0.1:8001"]}
    sticky: {header: x-user}
    shadow: {version: 3, percent: 5}
    regions: [eu]
    idempotency: true
  letters:
    versions: {1: {weight: 1, endpoints: ["127.0.0.1:8003"]}}
    affinity: {message: sequence_id}
    sequences: true
"""
ONE = "models: {digits: {versions: {1: {weight: 1, endpoints: ['127.0.0.1:8001']}}}}"


def test_whole_file_is_read(tmp_path):
    """Every field."""
    file = tmp_path / "deployment.yaml"
    file.write_text(WHOLE)
    read = read_deployment(file)
    first = Version(90, (Endpoint("127.0.0.1", 8001), Endpoint("::1", 8001)))
    assert read.models == {"digits": {1: first, 20: Version(10, (Endpoint("127.0.0.1", 8002),))}}
    assert (str(read.gateway), str(read.operator)) == ("127.0.0.2:443", "[::1]:9444")
    assert (read.operators, read.service_identity) == (("spiffe://example.org/ann",), "spiffe://example.org/service")
    assert (read.max_message_bytes, str(read.certificates)) == (4096, "/certs")


def test_file_with_models_alone_has_the_defaults_of_the_command_line(tmp_path):
    """Those that the schema shows, which are those of `sluice up`."""
    read = parse_deployment(ONE, "x.yaml", tmp_path)
    versions = {"digits": {1: Version(1, (Endpoint("127.0.0.1", 8001),))}}
    assert read == Deployment(
        models=versions, gateway=GATEWAY, operator=OPERATOR, certificates=tmp_path / ".sluice/certs"
    )
    assert read.max_message_bytes == DEFAULT_MAX_MESSAGE_BYTES


def test_routing_and_places_are_read(tmp_path):
    """A server's place is said once and holds wherever the server is named; of a model only its regions' are called."""
    read = parse_deployment(ROUTED, "x.yaml", tmp_path)
    first, second = Endpoint("127.0.0.1", 8001), Endpoint("127.0.0.1", 8002)
    assert read.routing == {
        "digits": Routing(CallKey(header="x-user"), shadow=Shadow(3, 5), regions=("eu",), idempotency=True),
        "letters": Routing(affinity=CallKey(message="sequence_id"), sequences=True),
    }
    assert read.localities == {first: Locality("eu", "eu-1"), second: Locality("us")}
    assert (read.locality, read.servers("digits", 1), read.servers("digits", 2)) == (
        Locality("eu", "eu-1"),
        (first,),
        (first,),
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("1:\n        weight: 90", "1:\n        weight: 9", "4: model 'digits': expected weights whose sum is 100"),
        ("idempotency: true", "idempotency: 1", "13: models.digits.idempotency: expected true or false, given 1"),
        ("{header: x-user}", "{header: X-User}", "10: models.digits.sticky.header: expected the name of a header"),
        ("{header: x-user}", "{claim: sub}", "3: model 'digits': expected issuers of tokens in 'access'"),
        ("{header: x-user}", "{}", "10: models.digits.sticky: expected a mapping with 'header' or 'claim'"),
        ("{header: x-user}", "{header: sluice-token}", "expected another header: the gateway removes"),
        ("percent: 5", "percent: 0.5", "11: models.digits.shadow.percent: expected a whole number from 0 to 100"),
        ("version: 3,", "version: 4,", "11: model 'digits': expected as shadow one of versions 1, 2, 3, given 4"),
        ("version: 3,", "version: 2,", "11: model 'digits': expected as shadow a version of weight 0"),
        ("regions: [eu]", "regions: [asia]", "7: model 'digits' version 1: expected an endpoint in asia"),
        ("region: us}", "regoin: us}", "did you mean 'region'?"),
        ('["127.0.0.1:8003"]', '[{address: "127.0.0.1:8001", region: us}]', "expected 127.0.0.1:8001 in one place"),
        (
            "affinity:",
            "sticky: {header: x-user}\n    affinity:",
            "16: model 'letters': expected 'affinity' or",
        ),
    ],
)
def test_routing_that_cannot_be_is_refused_with_its_line(tmp_path, old, new, problem):
    """And with what was expected."""
    assert ROUTED.count(old) == 1
    with pytest.raises(DeploymentFileError) as raised:
        parse_deployment(ROUTED.replace(old, new), "x.yaml", tmp_path)
    assert problem in str(raised.value)


@pytest.mark.parametrize("text", [WHOLE, ONE, ROUTED])
def test_formatted_deployment_is_read_as_the_same(tmp_path, text):
    """Folders become absolute, so that it may lie anywhere."""
    read = parse_deployment(text, "x.yaml", tmp_path)
    assert parse_deployment(format_deployment(read), "y.yaml", tmp_path / "elsewhere") == read


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path):
    """The certificates' folder and the lists of revoked ones."""
    read = parse_deployment(f"gateway: {{client_crl: lists/crl.pem}}\n{ONE}", "x.yaml", tmp_path)
    assert read.client_crl == tmp_path / "lists/crl.pem"
    assert parse_deployment(format_deployment(read), "y.yaml", tmp_path / "elsewhere") == read


def test_schema_is_one_and_refuses_what_it_should():
    """It is valid itself, and every value that an error may be about has a title that says what was expected."""
    jsonschema.Draft202012Validator.check_schema(load_schema())
    assert json.dumps(load_schema()).count('"type"') <= json.dumps(load_schema()).count('"title"')


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("weight: 90", "weight: -1", "11: models.digits.versions.1.weight: expected a whole number from 0 to 1000000"),
        ("weight: 90", "weight: 1.5", "11: models.digits.versions.1.weight: expected a whole number"),
        ("weight: 90", "weight: ten", "11: models.digits.versions.1.weight: expected a whole number"),
        ("weight: 90", "weight: true", "11: models.digits.versions.1.weight: expected a whole number"),
        ("weight: 90", "wieght: 90", "11: models.digits.versions.1.wieght: unknown field; did you mean 'weight'?"),
        ("weight: 90, ", "", "11: models.digits.versions.1: expected 'weight', which is missing"),
        ("      20:", "      02:", "12: models.digits.versions.02: expected a version number from 1"),
        ("      20:", "      1.5:", "12: models.digits.versions.1.5: expected a version number from 1"),
        ("  digits:", "  'di gits':", "9: models.di gits: expected a name of at most 128 letters"),
        ('["127.0.0.1:8002"]', "[]", "14: models.digits.versions.20.endpoints: expected a list of one or more servers"),
        ("127.0.0.1:8002", "localhost:8002", "14: models.digits.versions.20.endpoints.0: expected an IP address"),
        ("127.0.0.1:8002", "127.0.0.1:0", "14: expected an IP address and a port from 1 to 65535"),
        ("127.0.0.1:8002", "127.0.0.1:99999", "14: expected an IP address and a port from 1 to 65535"),
        ("127.0.0.1:8002", "127.0.0.999:1", "14: expected an IP address and a port from 1 to 65535"),
        ("[::1]:8001", "127.0.0.1:8001", "11: models.digits.versions.1.endpoints: expected a list"),
        ("max_message_bytes: 4096", "max_message_bytes: 1", "5: gateway.max_message_bytes: expected a whole number"),
        ("operators:", "operator:", "4: key 'operator' is there twice"),
        ("[::1]:9444", "127.0.0.2:443", "3: gateway and operator listener: expected two endpoints"),
        ("spiffe://example.org/service", "service", "7: service_identity: expected a URI"),
        ("certificates: /certs", "certificates: 7", "6: certificates: expected the path of a folder, given 7"),
        ("models:", "modles:", "8: modles: unknown field; did you mean 'models'?"),
    ],
)
def test_file_that_cannot_be_is_refused_with_line_and_field(tmp_path, old, new, problem):
    """The text starts with the file and the line, as editors and people expect it."""
    assert WHOLE.count(old) == 1
    with pytest.raises(DeploymentFileError) as refusal:
        parse_deployment(WHOLE.replace(old, new), "deploy.yaml", tmp_path)
    lines = str(refusal.value).replace("deploy.yaml: line ", "deploy.yaml:").splitlines()
    assert any(line.startswith(f"deploy.yaml:{problem}") for line in lines), lines


def test_every_problem_is_told_at_once(tmp_path):
    """In the order of the lines."""
    text = WHOLE.replace("weight: 90", "weight: -1").replace("/certs", "[]").replace("weight: 10", "weight: no")
    with pytest.raises(DeploymentFileError) as refusal:
        parse_deployment(text, "deploy.yaml", tmp_path)
    assert [line.split(":")[1] for line in str(refusal.value).splitlines()] == ["6", "11", "13"]


def test_weights_of_zero_alone_are_refused(tmp_path):
    """Nobody would get the model's traffic."""
    with pytest.raises(DeploymentFileError, match=r"^x.yaml:1: model 'digits': expected a weight above 0"):
        parse_deployment(ONE.replace("weight: 1", "weight: 0"), "x.yaml", tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_file_that_is_not_there_or_no_text_is_refused(tmp_path, content):
    """With its name."""
    file = tmp_path / "deployment.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DeploymentFileError, match=r"deployment\.yaml: "):
        read_deployment(file)
