"""service.localities in a real Envoy: nearer servers first, others when those are gone, and some never."""

import grpc
import pytest
from gateway_rig import MAX_MESSAGE_BYTES, START_TIMEOUT_S, Backend, Rig, infer

from certs import ensure_certificates
from service.deployment import Deployment, Endpoint, Version
from service.localities import NOWHERE, Locality, rank_localities
from service.model_routing import Routing
from tests.free_ports import HOST, find_free_port

OWN, NEAR, FAR = Locality("eu", "eu-1"), Locality("eu", "eu-2"), Locality("us", "us-1")
SERVES = ("digits/1", "letters/1")


@pytest.mark.parametrize(
    ("own", "others", "ranks"),
    [
        (OWN, [OWN, NEAR, FAR], {OWN: 0, NEAR: 1, FAR: 2}),
        (OWN, [NEAR, FAR], {NEAR: 0, FAR: 1}),
        (OWN, [OWN, FAR, NOWHERE], {OWN: 0, FAR: 1, NOWHERE: 1}),
        (Locality("eu"), [OWN, NEAR, FAR], {OWN: 0, NEAR: 0, FAR: 1}),
        (NOWHERE, [OWN, NEAR, FAR], {OWN: 0, NEAR: 0, FAR: 0}),
    ],
)
def test_nearer_servers_come_first(own, others, ranks):
    """Own zone, own region, others; priorities have no gap."""
    assert rank_localities(own, others) == ranks


@pytest.fixture
def rig(tmp_path):
    """A gateway in a zone, with servers there, in its region, and elsewhere; `letters` may not leave the region."""
    ensure_certificates(tmp_path / "certs")
    backends = {name: Backend(name, tmp_path / "certs", SERVES) for name in ("own", "near", "far")}
    endpoints = tuple(backend.endpoint for backend in backends.values())
    deployment = Deployment(
        models={model: {1: Version(1, endpoints)} for model in ("digits", "letters")},
        routing={"letters": Routing(regions=("eu",))},
        localities=dict(zip(endpoints, (OWN, NEAR, FAR), strict=True)),
        locality=OWN,
        certificates=tmp_path / "certs",
        gateway=Endpoint(HOST, find_free_port()),
        operator=Endpoint(HOST, find_free_port()),
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    rig = Rig(tmp_path, deployment, START_TIMEOUT_S)
    rig.backends = backends
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        for backend in backends.values():
            backend.stop()


def await_answers(load, answer):
    """Return when some calls in a row have got no other answer."""
    for _ in range(500):
        if set(load.wait_for_more(20)) == {answer}:
            return
    raise AssertionError(load.answers)


def test_failover_and_back_under_load_fails_no_call(rig):
    """Zone by zone outwards as servers break off, and at once inwards as they come back."""
    with rig.load() as load:
        await_answers(load, "own:1")
        for gone, left in (("own", "near:1"), ("near", "far:1")):
            rig.backends[gone].stop()
            await_answers(load, left)
        for name in ("near", "own"):
            port = rig.backends[name].endpoint.port
            rig.backends[name] = Backend(name, rig.certificates, SERVES, port)
            await_answers(load, f"{name}:1")
    assert load.failures == []


def test_model_of_a_region_never_leaves_it(rig):
    """Without servers there it is UNAVAILABLE, while another model goes elsewhere."""
    with rig.connect() as channel:
        assert infer(channel, "letters") == "own:1"
        for name in ("own", "near"):
            rig.backends[name].stop()
        for _ in range(50):
            assert infer(channel, "digits") == "far:1"
            with pytest.raises(grpc.RpcError) as raised:
                infer(channel, "letters")
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(rig.backends["far"].calls) == 50
