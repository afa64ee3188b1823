"""The section `control` of a deployment file."""

import pytest

from service.control_settings import CONTROL, ControlSettings
from service.deployment import Endpoint
from service.deployment_file import DeploymentFileError, format_deployment, parse_deployment

MODELS = """
models:
  digits:
    versions:
      1: {weight: 1, endpoints: ["127.0.0.1:8001"]}
      2: {weight: 1, endpoints: ["127.0.0.1:8002"]}
  shared:
    versions:
      1: {weight: 1, endpoints: ["127.0.0.1:8003", "127.0.0.1:8004"]}
      2: {weight: 1, endpoints: ["127.0.0.1:8004"]}
"""
WHOLE = """
control:
  listen: "[::1]:18000"
  gateways: ["spiffe://example.org/gateway"]
  clients: ["spiffe://example.org/ann", "spiffe://example.org/bob"]
  direct: [digits]
"""


def parse(control, tmp_path):
    """The section of a file."""
    return parse_deployment(control + MODELS, "x.yaml", tmp_path).control


def test_whole_section_is_read(tmp_path):
    """Every field."""
    assert parse(WHOLE, tmp_path) == ControlSettings(
        listen=Endpoint("::1", 18000),
        gateways=("spiffe://example.org/gateway",),
        clients=("spiffe://example.org/ann", "spiffe://example.org/bob"),
        direct=("digits",),
    )


def test_empty_section_has_defaults_and_an_absent_one_is_none(tmp_path):
    """Gateways of the project's own certificates, and no clients."""
    assert parse("control: {}", tmp_path) == ControlSettings(listen=CONTROL)
    assert parse("", tmp_path) is None


@pytest.mark.parametrize("control", [WHOLE, "control: {}", ""])
def test_formatted_section_is_read_as_the_same(tmp_path, control):
    """What is written down is what is read at the next start."""
    deployment = parse_deployment(control + MODELS, "x.yaml", tmp_path)
    assert parse_deployment(format_deployment(deployment), "y.yaml", tmp_path) == deployment


@pytest.mark.parametrize(
    ("control", "line", "text"),
    [
        ("control: {direct: [digit]}", 1, "expected one of digits, shared, given 'digit'"),
        ("control:\n  direct:\n  - digits\n  - shared", 4, "127.0.0.1:8004 serves versions 1 and 2"),
        ("control: {gateways: ['a://b'], clients: ['a://b']}", 1, "expected gateways and clients to differ"),
        ("control: {gateways: []}", 1, "control.gateways: expected a list of one or more URIs"),
        ("control:\n  listens: 127.0.0.1:1", 2, "did you mean 'listen'?"),
    ],
)
def test_section_that_cannot_be_is_refused_with_its_line(tmp_path, control, line, text):
    """As all of a deployment file is."""
    with pytest.raises(DeploymentFileError) as raised:
        parse(control, tmp_path)
    assert str(raised.value).startswith(f"x.yaml:{line}: ")
    assert text in str(raised.value)
