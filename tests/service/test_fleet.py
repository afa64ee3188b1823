"""service.fleet: what is refused before anybody is sent it."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
from gateway_rig import HOST, make_deployment

from service.control_settings import ControlSettings
from service.deployment import Deployment, Endpoint
from service.envoy_check import find_envoy
from service.fleet import Fleet, FleetError
from service.follower import GATEWAY, Introduction, Place


@pytest.fixture
def deployment(tmp_path):
    """One model."""
    return dataclasses.replace(make_deployment(tmp_path), control=ControlSettings())


def apply(deployment: Deployment, new: Deployment, folder: Path, envoy: Path) -> tuple[Fleet, list[str]]:
    """A fleet without followers, once it has tried to go by another deployment, and the stages of that."""
    fleet, stages = Fleet(deployment, folder / "kept.yaml", envoy, drain_timeout_s=0), []
    asyncio.run(fleet.apply(new, stages.append))
    return fleet, stages


def test_deployment_that_envoy_accepts_is_in_force_and_kept(deployment, tmp_path):
    """Nobody follows yet; a later start goes on with it."""
    new = deployment.with_weights("digits", {1: 7})
    fleet, stages = apply(deployment, new, tmp_path, find_envoy())
    assert fleet.deployment is new
    assert "weight: 7" in (tmp_path / "kept.yaml").read_text()
    assert stages == ["check"]


def test_deployment_that_the_check_refuses_is_in_force_nowhere(deployment, tmp_path):
    """The check is any program's, here of one that refuses all."""
    fleet = Fleet(deployment, tmp_path / "kept.yaml", Path("/bin/false"))
    with pytest.raises(FleetError, match="Envoy refuses the configuration"):
        asyncio.run(fleet.apply(deployment.with_weights("digits", {1: 7}), str))
    assert fleet.deployment is deployment
    assert "Envoy refuses the configuration" in fleet.halted
    assert not (tmp_path / "kept.yaml").exists()


def test_second_change_at_a_time_is_refused(deployment, tmp_path):
    """Two would meet at the same gateways."""

    async def apply_both():
        fleet = Fleet(deployment, tmp_path / "kept.yaml", find_envoy())
        return await asyncio.gather(*(fleet.apply(deployment, str) for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(apply_both())
    assert first is None
    assert str(second) == "another change is under way"


def test_server_of_a_model_that_clients_reach_directly_may_serve_another_version(deployment, tmp_path):
    """Which it may not beside the first, so that both are never one deployment on the way, nor on the way back."""
    direct = dataclasses.replace(deployment, control=ControlSettings(direct=("digits",)))
    new = dataclasses.replace(direct, models={"digits": {2: direct.models["digits"][1]}})
    fleet = Fleet(direct, tmp_path / "kept.yaml", find_envoy())
    asyncio.run(fleet.apply(new, str, unhealthy_too=True))
    assert fleet.deployment is new


def test_deployment_that_cannot_be_at_a_followers_place_is_in_force_nowhere(deployment, tmp_path):
    """A gateway that listens for clients where operators are to."""
    taken = Endpoint(HOST, 1025)

    async def apply_beside_follower():
        async def send(response):
            pass

        fleet = Fleet(deployment, tmp_path / "kept.yaml", find_envoy())
        await fleet.join(Introduction("a", "spiffe://a", "", Place(GATEWAY, gateway=taken)), send, str)
        with pytest.raises(FleetError, match="expected two endpoints"):
            await fleet.apply(dataclasses.replace(deployment, operator=taken), str)
        return fleet

    fleet = asyncio.run(apply_beside_follower())
    assert fleet.deployment is deployment
    assert "expected two endpoints" in fleet.halted
