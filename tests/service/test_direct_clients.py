"""gRPC clients that speak xDS themselves: grpcio with generated stubs, mTLS, and servers on the native transport."""

import contextlib
import dataclasses

import pytest
from control_rig import Control, XdsClient, find_ports, open_control, trust_clients
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from certs import ensure_certificates
from certs.identities import CLIENT_URI
from service.control_settings import ControlSettings
from service.deployment import Deployment, Endpoint, Version
from service.xds_types import CLUSTER, LISTENER
from tests.onnx_models import save, tiny
from tests.served import serving

CALLS = 400
# Of a share of calls by chance: eight standard deviations of 400 at one half are 80.
SPREAD = 80


class Direct:
    """A control plane, a server for each of two versions of a model, and a client that found them."""

    def __init__(self, folder, deployment):
        self.deployment = deployment
        self.control = Control(folder, deployment)
        self.client = None

    def connect(self, node, target="xds:///digits"):
        """Another client."""
        return contextlib.closing(XdsClient(target, self.control.make_bootstrap(node)))

    def apply(self, deployment):
        """Put a deployment in force."""
        code, text = self.control.apply(deployment)
        assert code == 0, text
        return text


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    """Versions 1 and 2 of digits, each on a port of its own, split 90/10; another model is not for such clients."""
    folder = tmp_path_factory.mktemp("direct")
    certificates = folder / "certs"
    ensure_certificates(certificates)
    with contextlib.ExitStack() as stack:
        versions = {}
        for number, weight in ((1, 90), (2, 10)):
            save(tiny(), folder / f"version {number}", "digits", number)
            options = ["--host", "127.0.0.1", "--transport", "native", *trust_clients(certificates)]
            address = stack.enter_context(serving(folder / f"version {number}", *options))
            versions[number] = Version(weight, (Endpoint.parse(address),))
        ports = find_ports("gateway", "operator", "control")
        control = ControlSettings(listen=ports.pop("control"), clients=(CLIENT_URI,), direct=("digits",))
        models = {"digits": versions, "other": versions}
        direct = Direct(folder, Deployment(models=models, certificates=certificates, control=control, **ports))
        direct.control.start()
        stack.callback(direct.control.stop)
        direct.client = stack.enter_context(direct.connect("first"))
        yield direct


def weigh(direct, first, second):
    """The deployment with other weights."""
    return direct.deployment.with_weights("digits", {1: first, 2: second})


def test_split_follows_the_deployment_without_a_failed_call(direct):
    """From 90/10 to 50/50 amid calls; the client is shown like a gateway."""
    answers, failures = direct.client.call(CALLS)
    assert failures == {}
    assert answers["1"] > answers.get("2", 0) + 2 * SPREAD
    with direct.client.load():
        assert "first client first" in direct.apply(weigh(direct, 50, 50))
    answers, failures = direct.client.call(CALLS)
    assert failures == {}
    assert abs(answers["1"] - CALLS / 2) < SPREAD
    assert "client first" in direct.control.await_followers(1)


def test_version_without_weight_and_one_that_goes_get_no_call(direct):
    """The servers that are left take all of them, and none fails; those that tell the control plane nothing will do."""
    for new in (weigh(direct, 0, 1), drop(direct, 1), weigh(direct, 0, 1)):
        with direct.client.load():
            direct.apply(new)
        assert direct.client.call(CALLS) == ({"2": CALLS}, {})
    direct.apply(weigh(direct, 90, 10))


def test_clients_call_on_while_the_control_plane_is_away_and_follow_it_when_it_is_back(direct):
    """With what they know; they look for it by themselves."""
    with direct.client.load():
        direct.control.stop()
    assert direct.client.call(CALLS)[1] == {}
    with direct.client.load():
        direct.control.start()
        direct.control.await_followers(1)
        direct.apply(weigh(direct, 0, 1))
    assert direct.client.call(CALLS) == ({"2": CALLS}, {})
    direct.apply(direct.deployment)


def test_client_may_pin_a_version_by_header(direct):
    """Routes look at what a client sends along; a version that there is not has no route."""
    assert direct.client.call(20, metadata=[("sluice-version", "2")]) == ({"2": 20}, {})
    answers, failures = direct.client.call(1, metadata=[("sluice-version", "9")])
    assert (answers, list(failures)) == ({}, ["UNAVAILABLE: No matching route found in xDS route config"])


def test_version_in_the_message_does_not_choose_the_server(direct):
    """What this mode cannot carry: routes do not see messages, and a server knows its own version alone."""
    direct.apply(weigh(direct, 1, 0))
    answers, failures = direct.client.call(5, version="2")
    assert answers == {}
    assert all(failure.startswith("NOT_FOUND") for failure in failures)
    assert direct.client.call(5, version="2", metadata=[("sluice-version", "2")]) == ({"2": 5}, {})
    direct.apply(weigh(direct, 90, 10))


def test_compressed_message_is_served(direct):
    """Nobody has to look into it on the way, as a gateway has."""
    answers, failures = direct.client.call(5, compression=True)
    assert (sum(answers.values()), failures) == (5, {})


def test_server_that_does_not_prove_the_declared_identity_gets_no_call(direct):
    """Clients check the servers' names as the gateway does."""
    direct.apply(dataclasses.replace(direct.deployment, service_identity="spiffe://example.org/other"))
    with direct.connect("second") as client:
        answers, [failure] = client.call(1)
    assert answers == {}
    assert failure.startswith("UNAVAILABLE")
    direct.apply(direct.deployment)


def test_model_that_is_not_declared_direct_is_told_to_no_client(direct):
    """Only what the deployment offers to such clients, and nothing of the gateways'."""
    for kind, name in ((LISTENER, "other"), (CLUSTER, "other@1"), (CLUSTER, "*"), (LISTENER, "gateway")):
        with open_control(
            direct.deployment, "client", DiscoveryRequest(type_url=kind, resource_names=[name])
        ) as stream:
            told = [str(resource.value) for resource in next(stream).resources]
        assert not any("other" in resource or "operator" in resource for resource in told)
        assert bool(told) == (name == "*")


def test_client_that_is_no_longer_named_learns_nothing_more(direct):
    """Its stream ends at once, and another is refused; what it knows it keeps."""
    nobody = dataclasses.replace(direct.deployment.control, clients=())
    direct.apply(dataclasses.replace(weigh(direct, 1, 0), control=nobody))
    with direct.connect("fourth") as client:
        answers, [failure] = client.call(1)
    assert answers == {}
    assert failure.startswith("UNAVAILABLE")
    assert "followers: 0" in direct.control.show()
    direct.apply(direct.deployment)


def drop(direct, number):
    """The deployment without a version, all traffic to the others."""
    versions = {each: version for each, version in direct.deployment.models["digits"].items() if each != number}
    return dataclasses.replace(direct.deployment, models={**direct.deployment.models, "digits": versions})
