"""`sluice control`: a fleet of real gateways follows one deployment, or stays with the one before."""

import contextlib
import dataclasses
import socket
import time

import grpc
import pytest
from control_rig import POLL_S, TIMEOUT_S, Control, Member, find_ports, open_control, run_command
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from gateway_rig import Backend, infer, make_deployment, run_load

from certs import ensure_certificates
from certs.identities import CLIENT_URI
from service.access_policy import AccessPolicy, Grant, Issuer, RemoteKeys, Role
from service.admin import AdminSocket
from service.control_settings import ControlSettings
from service.deployment import Deployment, Endpoint, Version
from service.deployment_file import format_deployment
from service.gateway import ADMIN_SOCKET
from service.xds_types import CLUSTER
from tests.free_ports import HOST, find_free_port

CHANGES = ("cluster_manager.cluster_modified", "listener_manager.listener_modified")
TAKEN = ("listener_manager.lds.update_success", "cluster_manager.cds.update_success")
CONNECTED = "control_plane.connected_state"


class Fleet:
    """A control plane and two gateways on one machine.

    Gateway a listens for clients where the deployment says, and gateway b for operators.
    """

    def __init__(self, folder, deployment, backends):
        self.deployment, self.backends = deployment, backends
        self.control = Control(folder, deployment)
        self.members = [
            Member(folder, "a", deployment, **find_ports("operator")),
            Member(folder, "b", deployment, **find_ports("listen")),
        ]

    def ask(self):
        """Who answers at each gateway."""
        answers = []
        for member in self.members:
            with member.connect() as channel:
                answers.append(infer(channel))
        return answers

    def put_back(self):
        """Have all go by the first deployment again."""
        code, text = self.control.apply(self.deployment)
        assert code == 0, text
        assert self.ask() == ["one:1", "one:1"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet for the model digits, of whose versions 1 gets all traffic; a server stands by for version 3."""
    folder = tmp_path_factory.mktemp("fleet")
    certificates = folder / "certs"
    ensure_certificates(certificates)
    with contextlib.ExitStack() as stack:
        backends, served = {}, ["digits", *(f"model{index}" for index in range(100))]
        for number, name in ((1, "one"), (2, "two"), (3, "three")):
            backends[number] = Backend(name, certificates, serves=(f"{model}/{number}" for model in served))
            stack.callback(backends[number].stop)
        ports = find_ports("gateway", "operator", "control")
        deployment = Deployment(
            models={
                "digits": {number: Version(weight, (backends[number].endpoint,)) for number, weight in ((1, 1), (2, 0))}
            },
            certificates=certificates,
            control=ControlSettings(listen=ports.pop("control")),
            **ports,
        )
        fleet = Fleet(folder, deployment, backends)
        # Envoy before its control plane: it waits.
        fleet.members[0].start(is_ready=False)
        stack.callback(fleet.members[0].stop)
        fleet.control.start()
        stack.callback(fleet.control.stop)
        fleet.members[1].start()
        stack.callback(fleet.members[1].stop)
        fleet.control.await_followers(2)
        yield fleet


def test_gateways_follow_one_deployment_and_are_shown(fleet):
    """Also one that was started before the control plane; each where it says that it listens."""
    assert fleet.ask() == ["one:1", "one:1"]
    shown = fleet.control.show()
    for text in ("gateway a", "gateway b", "spiffe://sluice.local/gateway", "since", "Listener", "RouteConfiguration"):
        assert text in shown
    assert "NACK" not in shown


def test_changed_weights_are_in_force_everywhere(fleet):
    """By the runtime that all take from the control plane: no listener and no cluster changes."""
    before = [member.read_numbers(*CHANGES) for member in fleet.members]
    code, text = fleet.control.apply(fleet.deployment.with_weights("digits", {1: 0, 2: 7}))
    assert (code, fleet.ask()) == (0, ["two:2", "two:2"]), text
    assert text.index("first gateway a") < text.index("1 more")
    assert [member.read_numbers(*CHANGES) for member in fleet.members] == before
    fleet.put_back()


def test_version_that_replaces_another_costs_no_call(fleet):
    """What comes is there before a route leads to it, and what goes stays until none does."""
    new = {2: fleet.deployment.models["digits"][2], 3: Version(1, (fleet.backends[3].endpoint,))}
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(member.connect()) for member in fleet.members]
        loads = [stack.enter_context(run_load(lambda channel=channel: infer(channel))) for channel in channels]
        for load in loads:
            load.wait_for_more(50)
        code, text = fleet.control.apply(dataclasses.replace(fleet.deployment, models={"digits": new}))
        assert code == 0, text
        for load in loads:
            assert set(load.wait_for_more(50)) <= {"one:1", "three:3"}
            assert set(load.wait_for_more(50)) == {"three:3"}
        fleet.put_back()
        assert [load.failures for load in loads] == [[], []]


def test_hundred_models_more_are_served_everywhere(fleet):
    """Two hundred clusters, a thousand routes."""
    models = {f"model{index}": fleet.deployment.models["digits"] for index in range(100)}
    code, text = fleet.control.apply(dataclasses.replace(fleet.deployment, models=fleet.deployment.models | models))
    assert code == 0, text
    for member in fleet.members:
        with member.connect() as channel:
            assert {infer(channel, model) for model in models} == {"one:1"}
    fleet.put_back()


def test_changed_cluster_gets_its_servers_again(fleet):
    """Envoy asks for them in words that it has used already, and would else wait for them until it gives up."""
    new = dataclasses.replace(fleet.deployment, service_identity="spiffe://example.org/nobody")
    code, text = fleet.control.apply(new)
    assert code == 0, text
    with fleet.members[0].connect() as channel, pytest.raises(grpc.RpcError) as raised:
        infer(channel)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    for member in fleet.members:
        assert member.read_numbers("cluster.digits@1.init_fetch_timeout") == {"init_fetch_timeout": 0}
    fleet.put_back()


def test_authority_of_an_issuer_is_needed_by_no_gateway(fleet):
    """Its file lies on the control plane's machine."""
    file = fleet.control.folder / "issuer-ca.pem"
    file.write_bytes((fleet.deployment.certificates / "internal-ca.pem").read_bytes())
    issuer = Issuer(issuer="https://example.org/", audiences=("sluice",), keys=RemoteKeys("https://127.0.0.1:1/", file))
    policy = AccessPolicy(
        issuers={"login": issuer}, roles={"caller": Role(("*",), ("infer",))}, grants=(Grant("caller", (CLIENT_URI,)),)
    )
    code, text = fleet.control.apply(dataclasses.replace(fleet.deployment, access=policy))
    assert (code, fleet.ask()) == (0, ["one:1", "one:1"]), text
    for member in fleet.members:
        admin = AdminSocket(member.state / ADMIN_SOCKET)
        clusters = admin.request("GET", "/config_dump?resource=dynamic_active_clusters")
        assert "-----BEGIN CERTIFICATE-----" in clusters
        assert str(file) not in clusters
    fleet.put_back()


def test_version_without_a_healthy_server_gets_traffic_from_nobody(fleet):
    """Unless that is meant; a server that is well for another version is none for this."""
    servers = fleet.deployment.models["digits"][1].endpoints
    new = dataclasses.replace(fleet.deployment, models={"digits": {4: Version(1, servers)}})
    code, text = fleet.control.apply(new)
    assert (code, "model 'digits' version 4: none of its servers is healthy" in text) == (2, True), text
    assert "first" not in text
    assert fleet.ask() == ["one:1", "one:1"]
    code, text = fleet.control.apply(new, "--unhealthy-too")
    assert (code, fleet.ask()) == (0, ["one:4", "one:4"]), text
    fleet.put_back()


def test_update_that_the_first_gateway_refuses_reaches_nobody(fleet):
    """It is to listen where somebody else does, which a gateway alone can find out; the other is sent nothing."""
    before = fleet.members[1].read_numbers(*TAKEN)
    with take_port() as taken:
        new = dataclasses.replace(fleet.deployment.with_weights("digits", {1: 0, 2: 1}), gateway=taken)
        code, text = fleet.control.apply(new)
    assert code == 2
    assert "gateway a" in text
    assert "refuses Listener" in text
    assert "Address already in use" in text
    assert "gateway b" not in text
    assert fleet.members[1].read_numbers(*TAKEN) == before
    assert fleet.ask() == ["one:1", "one:1"]
    shown = fleet.control.await_followers(2)
    assert "the last change was halted" in shown
    [refused] = [line for line in shown.splitlines() if "NACK" in line]
    assert "in use" in refused
    fleet.put_back()
    assert "halted" not in fleet.control.show()


def test_restarted_gateway_is_the_one_that_is_tried(fleet):
    """Its old Envoy follows too for as long as it drains, and takes any listener without looking at it."""
    code, text = run_command(["gateway", "restart", "--state-dir", str(fleet.members[0].state)])
    assert code == 0, text
    assert fleet.control.await_followers(3).count("gateway a") == 2
    with take_port() as taken:
        code, text = fleet.control.apply(dataclasses.replace(fleet.deployment, gateway=taken))
    assert (code, "more" in text) == (2, False), text
    assert "refuses Listener" in text
    # As before, whether or not the old one has gone.
    fleet.put_back()


def test_update_that_a_later_gateway_refuses_is_taken_back_from_the_first(fleet):
    """All go by what was in force before, which still is."""
    with take_port() as taken:
        new = dataclasses.replace(fleet.deployment.with_weights("digits", {1: 0, 2: 1}), operator=taken)
        code, text = fleet.control.apply(new)
    assert code == 2
    assert text.index("first gateway a") < text.index("gateway b") < text.index("What was in force before is again")
    assert fleet.ask() == ["one:1", "one:1"]
    fleet.control.await_followers(2)


def test_gateways_serve_on_while_the_control_plane_is_away_and_change_nothing_when_it_is_back(fleet):
    """The same versions: nothing is taken as new."""
    before = [member.read_numbers(*CHANGES, *TAKEN) for member in fleet.members]
    fleet.control.stop()
    await_all(fleet, lambda member: member.read_numbers(CONNECTED) == {"connected_state": 0})
    assert fleet.ask() == ["one:1", "one:1"]
    fleet.control.start()
    await_all(fleet, lambda member: member.read_numbers(CONNECTED) == {"connected_state": 1})
    fleet.control.await_followers(2)
    after = [member.read_numbers(*CHANGES) for member in fleet.members]
    assert after == [{name: old[name] for name in new} for old, new in zip(before, after, strict=True)]
    assert fleet.ask() == ["one:1", "one:1"]


def test_file_that_was_not_applied_is_not_in_force_after_a_restart(fleet):
    """Nobody could try it before all others get it."""
    fleet.control.stop()
    fleet.control.deployment = fleet.deployment.with_weights("digits", {1: 0, 2: 1})
    fleet.control.start()
    fleet.control.deployment = fleet.deployment
    fleet.control.await_followers(2)
    assert fleet.ask() == ["one:1", "one:1"]


@pytest.mark.parametrize(
    ("identity", "status"),
    [("client", grpc.StatusCode.PERMISSION_DENIED), (None, grpc.StatusCode.UNAVAILABLE)],
    ids=["not named", "no certificate"],
)
def test_stranger_learns_nothing(fleet, identity, status):
    """The certificate of somebody whom the deployment does not name, and none at all."""
    request = DiscoveryRequest(type_url=CLUSTER)
    with open_control(fleet.deployment, identity, request) as stream, pytest.raises(grpc.RpcError) as raised:
        next(stream)
    assert raised.value.code() is status


def test_gateway_that_listens_nowhere_is_told(fleet):
    """What it says of itself is checked as a file is."""
    request = DiscoveryRequest(type_url=CLUSTER)
    request.node.metadata.update({"gateway": "here"})
    with open_control(fleet.deployment, "gateway-upstream", request) as stream, pytest.raises(grpc.RpcError) as raised:
        next(stream)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected an IP address and a port" in raised.value.details()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["gateway", "run"], "expected either FILE or --control"),
        (["gateway", "run", "--control", "somewhere"], "expected an IP address and a port"),
        (["control", "serve", "FILE"], "expected 'control', which is missing"),
        (["control", "serve", "WHOLE", "--state-dir", "FOLDER"], "certificates: "),
        (["control", "show", "--state-dir", "FOLDER"], "no control plane answers for"),
    ],
)
def test_command_that_cannot_be_ends_with_why(tmp_path, arguments, text):
    """Exit code 2."""
    deployment = make_deployment(tmp_path)
    file, whole = tmp_path / "deployment.yaml", tmp_path / "whole.yaml"
    file.write_text(format_deployment(deployment))
    whole.write_text(format_deployment(dataclasses.replace(deployment, control=ControlSettings())))
    places = {"FILE": str(file), "WHOLE": str(whole), "FOLDER": str(tmp_path)}
    code, said = run_command([places.get(argument, argument) for argument in arguments])
    assert (code, text in said) == (2, True), said


@contextlib.contextmanager
def take_port():
    """An endpoint that somebody else listens on."""
    with socket.create_server((HOST, find_free_port())) as server:
        yield Endpoint(*server.getsockname())


def await_all(fleet, is_there):
    """Return when something holds for all gateways."""
    until = time.monotonic() + TIMEOUT_S
    while not all(map(is_there, fleet.members)):
        assert time.monotonic() < until
        time.sleep(POLL_S)
