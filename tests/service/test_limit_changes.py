"""Limits that come, change and go in a running gateway: no call fails for it, and each limit holds once it is there."""

import dataclasses

from gateway_rig import infer, open_channel, run_load, start_rig
from limit_calls import count_let_through

from service.deployment import Endpoint
from service.drift import find_drift
from service.envoy_check import find_envoy
from service.gateway_apply import GatewayChange
from service.limits import GLOBAL, Limits, LimitService, ModelLimit, RateLimit
from tests.free_ports import HOST, find_free_port

FEW = RateLimit(name="few", requests=1, per="hour", burst=3, actions=("metadata",))


def ask_metadata(channel):
    """A call that the limit counts."""
    return channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")(b"", timeout=60)


def test_limits_come_change_and_go_under_load(tmp_path):
    """The limit service need not be there: it is asked by nobody before it is declared, and then fails open."""
    service = LimitService(endpoints=(Endpoint(HOST, find_free_port()),))
    shared = RateLimit(name="shared", requests=1, per="hour", burst=1, scope=GLOBAL)
    steps = [
        (Limits(rates=(FEW,)), 3),
        (Limits(rates=(dataclasses.replace(FEW, burst=2),)), 2),
        (Limits(rates=(FEW, shared), service=service, models={"digits": ModelLimit(max_calls=50)}), 3),
        (Limits(rates=(shared,), service=service), 5),
        (None, 5),
    ]
    with (
        start_rig(tmp_path) as rig,
        open_channel(rig.deployment.gateway, rig.certificates, is_retrying=True) as channel,
        run_load(lambda: infer(channel)) as load,
    ):
        change = GatewayChange(rig.state_folder, find_envoy())
        for limits, let_through in steps:
            assert change.apply(dataclasses.replace(rig.deployment, limits=limits))
            load.wait_for_more(20)
            with rig.connect() as fresh:
                assert count_let_through(fresh, 5, ask_metadata) == let_through
        assert load.failures == []
        assert find_drift(rig.state_folder) == []
        assert not (rig.state_folder / "envoy/endpoints/limits.yaml").exists()
