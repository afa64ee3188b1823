"""Weights are read and shifted in a running Envoy, for now and for good."""

import json
from collections import Counter

import pytest
from gateway_rig import infer, start_rig

from service.admin import AdminError, OperatorListener
from service.deployment import DeploymentError, Endpoint, runtime_key
from service.traffic import Traffic


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A gateway that splits `digits` 90 to 10."""
    with start_rig(tmp_path_factory.mktemp("traffic")) as rig:
        yield rig


@pytest.fixture
def traffic(rig):
    """The rig's traffic, by the way that operators take."""
    return Traffic(rig.deployment, rig.operator)


@pytest.fixture
def restore(rig):
    """Set the weights back."""
    yield
    Traffic(rig.deployment, rig.admin).shift_for_good("digits", {1: 90, 2: 10}, rig.state_folder)


@pytest.mark.usefixtures("restore")
def test_shift_under_load_moves_traffic_without_failure(rig, traffic):
    """From 90/10 to 50/50: of 1,000 calls before and after, the share is right within five deviations; none fails."""
    with rig.load() as load:
        before = load.wait_for_more(1000)
        assert traffic.shift("digits", {1: 50, 2: 50}) == {1: 50, 2: 50}
        load.wait_for_more(20)
        after = load.wait_for_more(1000)
    assert load.failures == []
    assert 50 < before["b:2"] < 150
    assert 420 < after["b:2"] < 580


@pytest.mark.usefixtures("restore")
def test_shift_of_one_version_keeps_the_others(traffic):
    """Versions that are not named keep the weight in force, not the one that was declared."""
    traffic.shift("digits", {1: 70})
    assert traffic.shift("digits", {2: 30}) == {1: 70, 2: 30}
    assert traffic.read_weights("digits") == {1: 70, 2: 30}


@pytest.mark.usefixtures("restore")
def test_shift_to_0_takes_all_traffic_from_a_version(rig, traffic):
    """A version of weight 0 is out of the split, and comes back."""
    with rig.connect() as channel:
        traffic.shift("digits", {1: 0, 2: 1})
        assert Counter(infer(channel) for _ in range(100)) == {"b:2": 100}
        traffic.shift("digits", {1: 1, 2: 0})
        assert Counter(infer(channel) for _ in range(100)) == {"a:1": 100}


@pytest.mark.parametrize(
    ("model", "weights", "words"),
    [
        ("letters", {1: 1}, "model 'letters': expected one of digits"),
        ("digits", {3: 1}, "expected one of versions 1, 2, given 3"),
        ("digits", {1: -1}, "expected as weight a whole number"),
        ("digits", {1: 2.5}, "expected as weight a whole number"),
        ("digits", {1: 0, 2: 0}, "above 0 for at least one version"),
    ],
)
def test_shift_to_what_cannot_be_changes_nothing(rig, traffic, model, weights, words):
    """What Envoy would ignore with OK is refused by name."""
    with pytest.raises(DeploymentError, match=words):
        traffic.shift(model, weights)
    assert traffic.read_weights("digits") == {1: 90, 2: 10}


def test_shift_without_gateway_says_where_it_looked(rig):
    """An admin that is not there is named by its endpoint."""
    operator = OperatorListener.of_state(Endpoint("127.0.0.1", 9), rig.certificates)
    with pytest.raises(AdminError, match=r"127\.0\.0\.1:9: .*refused"):
        Traffic(rig.deployment, operator).shift("digits", {1: 1})


@pytest.mark.usefixtures("restore")
def test_shift_for_good_outlives_envoy_and_leaves_nothing_above_the_file(rig, traffic):
    """The file holds the weights and the admin none, so that the file's next change counts at once."""
    assert traffic.shift_for_good("digits", {1: 25, 2: 75}, rig.state_folder) == {1: 25, 2: 75}
    entries = json.loads(rig.admin.request("GET", "/runtime?format=json"))["entries"]
    assert entries[runtime_key("digits", 1)]["layer_values"] == ["25", ""]
    rig.stop()
    rig.start_envoy()
    assert traffic.read_weights("digits") == {1: 25, 2: 75}


@pytest.mark.usefixtures("restore")
def test_shift_is_lost_with_envoy(rig, traffic):
    """A shift for now ends with Envoy; the file's weights are back."""
    traffic.shift("digits", {1: 1, 2: 1})
    rig.stop()
    rig.start_envoy()
    assert traffic.read_weights("digits") == {1: 90, 2: 10}


def test_runtime_key_is_the_one_that_envoy_makes(rig):
    """Were it another, Envoy would answer OK and ignore it."""
    rig.admin.request("POST", f"/runtime_modify?{runtime_key('digits', 1)}=0")
    try:
        with rig.connect() as channel:
            assert Counter(infer(channel) for _ in range(100)) == {"b:2": 100}
    finally:
        rig.admin.request("POST", f"/runtime_modify?{runtime_key('digits', 1)}=")
