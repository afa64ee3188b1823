"""The limits of a deployment file: read, described, refused with line and field."""

import pytest

from service.deployment import Endpoint
from service.deployment_file import DeploymentFileError, format_deployment, parse_deployment
from service.limits import LimitService, ModelLimit, RateLimit

WHOLE = """\
models: {digits: {versions: {1: {weight: 1, endpoints: ['127.0.0.1:8001']}}}}
gateway: {max_headers_kib: 16}
limits:
- name: tenants
  requests: 100
  per: minute
- name: one
  requests: 5
  per: hour
  burst: 2
  by: [subject, model]
  scope: global
  models: [digits]
  subjects: [ann]
  tenants: [acme]
  certificates: ["spiffe://example.org/ann"]
  actions: [infer, metadata]
limit_service:
  endpoints: ["127.0.0.1:8100"]
  timeout_ms: 20
  on_failure: refuse
  identity: spiffe://example.org/limits
model_limits:
  digits: {max_calls: 3, max_message_bytes: 4096}
"""


def parse(text, tmp_path):
    """The deployment of a text."""
    return parse_deployment(text, "x.yaml", tmp_path)


def test_limits_are_read(tmp_path):
    """Every field; a burst that is not given is as large as the number of requests."""
    limits = parse(WHOLE, tmp_path).limits
    assert limits.rates == (
        RateLimit(name="tenants", requests=100, per="minute", burst=100),
        RateLimit(
            name="one",
            requests=5,
            per="hour",
            burst=2,
            by=("subject", "model"),
            scope="global",
            models=("digits",),
            subjects=("ann",),
            tenants=("acme",),
            certificates=("spiffe://example.org/ann",),
            actions=("infer", "metadata"),
        ),
    )
    assert limits.service == LimitService(
        endpoints=(Endpoint("127.0.0.1", 8100),),
        timeout_ms=20,
        on_failure="refuse",
        identity="spiffe://example.org/limits",
    )
    assert limits.models == {"digits": ModelLimit(max_calls=3, max_message_bytes=4096)}
    assert parse(WHOLE, tmp_path).max_headers_kib == 16


@pytest.mark.parametrize("end", [None, WHOLE.index("limit_service"), WHOLE.index("limits")])
def test_formatted_limits_are_read_as_the_same(tmp_path, end):
    """All of them, some, and none."""
    read = parse(WHOLE[:end].replace("scope: global", "scope: local") if end else WHOLE, tmp_path)
    assert parse(format_deployment(read), tmp_path / "elsewhere") == read


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("requests: 100", "requests: 0", "5: limits.0.requests: expected a whole number from 1 to 1000000, given 0"),
        ("per: minute", "per: day", "6: limits.0.per: expected second, minute or hour, given"),
        ("name: tenants", "name: Tenants", "4: limits.0.name: expected a name of at most 63 small letters"),
        ("name: tenants", "name: one", "7: limit 'one': expected each name once"),
        ("[subject, model]", "[sub]", "11: limits.1.by.0: expected subject, tenant, model, certificate or action"),
        ("scope: global", "scope: world", "12: limits.1.scope: expected local or global"),
        ("models: [digits]", "models: [faces]", "13: expected one of the models digits, given 'faces'"),
        ("models: [digits]", "models: []", "13: limits.1.models: expected a list of one or more models"),
        ("[infer, metadata]", "[admin]", "17: limits.1.actions.0: expected one of infer, metadata"),
        ("burst: 2", "brust: 2", "10: limits.1.brust: unknown field; did you mean 'burst'?"),
        ("127.0.0.1:8100", "redis:8100", "19: limit_service.endpoints.0: expected an IP address"),
        ("on_failure: refuse", "on_failure: deny", "21: limit_service.on_failure: expected allow or refuse"),
        ("limit_service:", "limits_service:", "18: limits_service: unknown field; did you mean 'limit_service'?"),
        ("digits: {max_calls: 3", "faces: {max_calls: 3", "24: expected one of the models digits, given 'faces'"),
        ("max_calls: 3, max_message_bytes: 4096", "", "24: model_limits.digits: expected a mapping with max_calls"),
        ("max_headers_kib: 16", "max_headers_kib: 0", "2: gateway.max_headers_kib: expected a whole number from 1"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_line_and_field(tmp_path, old, new, problem):
    """As the rest of the file is."""
    assert WHOLE.count(old) == 1
    with pytest.raises(DeploymentFileError) as refusal:
        parse(WHOLE.replace(old, new), tmp_path)
    lines = str(refusal.value).splitlines()
    assert any(line.startswith(f"x.yaml:{problem}") for line in lines), lines


def test_global_limit_without_a_service_is_refused(tmp_path):
    """Nobody would count."""
    with pytest.raises(DeploymentFileError, match=r"^x.yaml:12: limit 'one': expected 'limit_service' beside it"):
        parse(WHOLE[: WHOLE.index("limit_service")], tmp_path)


def test_refusal_says_what_was_expected_and_when_there_is_more():
    """Six a minute are one in ten seconds."""
    rate = RateLimit(name="x", requests=6, per="minute", burst=2, by=("subject", "model"))
    assert rate.refusal.startswith("limit 'x': expected at most 6 requests a minute for each subject and model, 2 at")
    assert rate.retry_ns == 10_000_000_000
