"""Which version answers: by weight or by name, never by a client's header. Real versions, told apart by numbers."""

import pytest

from service.gateway import VERSION_HEADER
from service.traffic import Traffic
from tests.end_to_end.load import run_load

CALLERS = 16
CALLS = 2000
# Of a share of 10 % of 2,000 calls five standard deviations are 67, of 50 % they are 112.
TENTH = range(200 - 67, 200 + 68)
HALF = range(1000 - 112, 1000 + 113)


@pytest.fixture
def traffic(twins):
    """The traffic of the shared deployment, as its operator shifts it; even again afterwards."""
    traffic = Traffic(twins.rig.deployment, twins.rig.operator)
    yield traffic
    traffic.shift("adder", {1: 50, 2: 50})


def test_weights_split_calls_and_a_shift_under_load_fails_none(clients, gateway, traffic):
    """90 to 10, then 50 to 50: each time the share is right, every answer the version's own, and no call fails."""
    assert traffic.shift("adder", {1: 90, 2: 10}) == {1: 90, 2: 10}
    with run_load(clients, gateway, callers=CALLERS, connections=4) as load:
        before = load.wait_for_more(CALLS)
        traffic.shift("adder", {1: 50, 2: 50})
        # Those under way may still go by the old weights.
        load.wait_for_more(2 * CALLERS)
        after = load.wait_for_more(CALLS)
    assert load.failures == []
    assert before["1"] + before["2"] == before.total()
    assert before["2"] * CALLS // before.total() in TENTH
    assert after["2"] * CALLS // after.total() in HALF


def test_many_shifts_under_load_fail_no_call(clients, gateway, traffic):
    """To and fro as fast as the admin answers; a version without weight gets nothing."""
    with run_load(clients, gateway, callers=CALLERS, connections=4) as load:
        for _ in range(10):
            for weights in ({1: 0, 2: 1}, {1: 1, 2: 0}, {1: 5, 2: 5}):
                traffic.shift("adder", weights)
                load.wait_for_more(20)
        traffic.shift("adder", {1: 0, 2: 1})
        load.wait_for_more(2 * CALLERS)
        assert set(load.wait_for_more(200)) == {"2"}
    assert load.failures == []


def test_version_by_name_is_answered_whatever_its_weight(clients, gateway, traffic):
    """A version that is out of the split still serves who asks for it."""
    traffic.shift("adder", {1: 0, 2: 1})
    with run_load(clients, gateway, version="1") as load:
        assert set(load.wait_for_more(100)) == {"1"}
    assert load.failures == []


def test_client_cannot_choose_its_version_by_a_header(clients, gateway, traffic):
    """The header that the gateway sets is the gateway's; a client's own has no effect."""
    traffic.shift("adder", {1: 0, 2: 1})
    with run_load(clients, gateway, metadata=((VERSION_HEADER, "1"),)) as load:
        assert set(load.wait_for_more(200)) == {"2"}
    assert load.failures == []
