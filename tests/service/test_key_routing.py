"""What the gateway does with idempotency keys and with sequences that must not be sent again, in a real Envoy."""

from collections import Counter

import grpc
import pytest
from gateway_rig import MAX_MESSAGE_BYTES, START_TIMEOUT_S, Backend, Rig, infer, run_traffic

from certs import ensure_certificates
from service.deployment import Deployment, DeploymentError, Endpoint, Version
from service.model_routing import CallKey, Routing
from service.traffic import Traffic
from tests.free_ports import HOST, find_free_port

MODELS = ("keyed", "sticky", "sums", "steps", "plain")
KEYS = [f"key-{number}" for number in range(60)]


class FaultyBackend(Backend):
    """A server that may take a call, count it, and then fail it: `fault` is "", "unavailable" or "reset"."""

    fault = ""

    def _fail(self, context):
        if not self.fault:
            return
        self.calls.append(("faulty", {}, 0))
        if self.fault == "unavailable":
            context.abort(grpc.StatusCode.UNAVAILABLE, "counted, and failed")
        context.cancel()
        raise RuntimeError("reset")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """One gateway before three servers, each of which serves two versions of every model."""
    folder = tmp_path_factory.mktemp("keys")
    ensure_certificates(folder / "certs")
    serves = [f"{model}/{number}" for model in MODELS for number in (1, 2)]
    backends = {name: FaultyBackend(name, folder / "certs", serves) for name in "abc"}
    servers = tuple(backend.endpoint for backend in backends.values())
    deployment = Deployment(
        models={model: {1: Version(50, servers), 2: Version(50, servers)} for model in MODELS},
        routing={
            "keyed": Routing(idempotency=True),
            "sticky": Routing(idempotency=True, sticky=CallKey(header="x-user")),
            "sums": Routing(affinity=CallKey(header="sluice-sequence")),
            "steps": Routing(sequences=True),
        },
        certificates=folder / "certs",
        gateway=Endpoint(HOST, find_free_port()),
        operator=Endpoint(HOST, find_free_port()),
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    rig = Rig(folder, deployment, START_TIMEOUT_S)
    rig.backends = backends
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        for backend in backends.values():
            backend.stop()


@pytest.fixture
def channel(rig):
    """A client's connection."""
    with rig.connect() as channel:
        yield channel


@pytest.fixture
def faults(rig):
    """Sets the fault of all servers, or of some; none is left after the test."""

    def set_faults(fault, names="abc"):
        for name in names:
            rig.backends[name].fault = fault

    yield set_faults
    set_faults("")


def ask(channel, key, model="keyed", version="", **headers):
    """Which server answered a call with a key, and as which version: "a:1"."""
    metadata = [("idempotency-key", key), *((name.replace("_", "-"), text) for name, text in headers.items())]
    return infer(channel, model, version, metadata=metadata)


def test_calls_with_the_same_key_meet_one_server_and_one_version(channel):
    """Any number of times; other keys meet others, and every version of every server gets some."""
    homes = {key: {ask(channel, key) for _ in range(4)} for key in KEYS}
    assert all(len(home) == 1 for home in homes.values())
    assert set.union(*homes.values()) == {f"{name}:{version}" for name in "abc" for version in (1, 2)}


def test_calls_without_a_key_are_spread(channel):
    """As their weights say, over all servers."""
    answers = Counter(infer(channel, "keyed") for _ in range(200))
    assert set(answers) == {f"{name}:{version}" for name in "abc" for version in (1, 2)}


def test_key_meets_the_same_server_whatever_the_version(channel):
    """Where versions share their servers: so whoever has kept an answer is asked again after a shift."""
    for key in KEYS:
        servers = {ask(channel, key, version=version).partition(":")[0] for version in ("", "1", "2")}
        assert len(servers) == 1


def test_shift_moves_keys_in_one_direction_only(rig, channel):
    """Those that go over go from the version that loses to the one that gains, and stay at their server."""
    traffic = Traffic(rig.deployment, rig.operator)
    before = {key: ask(channel, key) for key in KEYS}
    traffic.shift("keyed", {1: 80, 2: 20})
    try:
        after = {key: ask(channel, key) for key in KEYS}
    finally:
        traffic.shift("keyed", {1: 50, 2: 50})
    moved = {key for key in KEYS if before[key] != after[key]}
    assert 0 < len(moved) < len(KEYS) // 2
    for key in moved:
        assert (before[key][-1], after[key][-1]) == ("2", "1")
        assert before[key][0] == after[key][0]


def test_shift_in_steps_keeps_the_sum_by_which_keys_are_drawn(rig):
    """A third of the way from a half is no whole percent, and hundredths of percents would be another sum."""
    try:
        result = run_traffic(rig, "shift", "keyed", "--to", "2=100", "--over", "1s", "--steps", "3")
        assert result.exit_code == 0, result.output
        assert Traffic(rig.deployment, rig.operator).read_weights("keyed") == {1: 0, 2: 100}
    finally:
        Traffic(rig.deployment, rig.operator).shift("keyed", {1: 50, 2: 50})


def test_callers_that_stay_at_a_version_stay_with_keys_too(channel):
    """What the model's callers are kept by comes first: a retry has it as well."""
    for user in KEYS[:20]:
        homes = {ask(channel, key, "sticky", x_user=user) for key in KEYS[:5]}
        assert len(homes) == 1
    assert len({ask(channel, key, "sticky") for key in KEYS}) > 3


def test_key_whose_server_fails_is_answered_by_another(channel, faults):
    """It is computed anew there: no server has another one's answers."""
    home = ask(channel, "lost")
    faults("unavailable", home[0])
    assert ask(channel, "lost")[0] != home[0]
    faults("")
    assert ask(channel, "lost") == home


@pytest.mark.parametrize("fault", ["unavailable", "reset"])
def test_call_of_a_sequence_that_was_counted_is_never_sent_again(rig, channel, faults, fault):
    """It may have made its step: the client hears that it failed. Other models' calls are tried elsewhere."""

    def count_attempts(**options):
        before = sum(len(backend.calls) for backend in rig.backends.values())
        with pytest.raises(grpc.RpcError) as raised:
            infer(channel, **options)
        assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return sum(len(backend.calls) for backend in rig.backends.values()) - before

    faults(fault)
    for version in ("", "1"):
        metadata = [("sluice-sequence", "seven")]
        assert count_attempts(model="sums", version=version, metadata=metadata) == 1
        assert count_attempts(model="steps", version=version) == 1
        assert count_attempts(model="plain", version=version) > 1
    assert count_attempts(model="sums", metadata=[("sluice-version", "2")]) == 1


def test_weights_of_a_model_with_keys_add_up_to_a_hundred(rig):
    """Another sum would lead every key elsewhere."""
    with pytest.raises(DeploymentError, match="whose sum is 100"):
        rig.deployment.with_weights("keyed", {1: 60})
