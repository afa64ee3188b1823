"""service.fleet: what is refused before anybody is sent it."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from gateway_rig import HOST, make_deployment

from certs.identities import GATEWAY_URI
from service.control_settings import ControlSettings
from service.deployment import Deployment, Endpoint
from service.envoy_check import find_envoy
from service.fleet import Fleet, FleetError
from service.follower import GATEWAY, Introduction, Place
from service.xds_types import CLUSTER


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


class Stream:
    """A follower by hand: it acknowledges what it is sent, unless it is deaf."""

    def __init__(self, fleet, address, *, is_deaf=False):
        self._fleet, self._is_deaf = fleet, is_deaf
        self._who = Introduction("a", GATEWAY_URI, address, Place(GATEWAY))
        self._hearing = set()

    async def join(self):
        """Ask for clusters."""
        self._follower = await self._fleet.join(self._who, self._take, str)
        await self._follower.hear(DiscoveryRequest(type_url=CLUSTER))

    async def leave(self):
        """End."""
        await self._fleet.leave(self._follower)

    async def _take(self, answer):
        if not self._is_deaf:
            ack = DiscoveryRequest(type_url=CLUSTER, version_info=answer.version_info, response_nonce=answer.nonce)
            # Who sends waits for nobody to hear.
            task = asyncio.ensure_future(self._follower.hear(ack))
            self._hearing.add(task)
            task.add_done_callback(self._hearing.discard)


def test_change_begins_with_the_youngest_of_a_name(deployment, tmp_path):
    """The others of it are about to go, and take whatever they are sent."""

    async def change():
        fleet, stages = Fleet(deployment, tmp_path / "kept.yaml", find_envoy(), drain_timeout_s=0), []
        for address in ("old", "young"):
            await Stream(fleet, address).join()
        await fleet.apply(add_version(deployment), stages.append, unhealthy_too=True)
        return stages

    assert asyncio.run(change())[:3] == ["check", "first gateway a (young)", "1 more"]


def test_change_goes_on_with_the_one_that_takes_the_place_of_the_first(deployment, tmp_path):
    """As in a restart amid a change: the old one is gone, and the new one must be tried before all others."""

    async def change():
        fleet = Fleet(deployment, tmp_path / "kept.yaml", find_envoy(), drain_timeout_s=0)
        stages, is_begun = [], asyncio.Event()
        old, young = Stream(fleet, "old", is_deaf=True), Stream(fleet, "young")

        def tell(stage):
            stages.append(stage)
            if "old" in stage:
                is_begun.set()

        await old.join()
        changing = asyncio.create_task(fleet.apply(add_version(deployment), tell, unhealthy_too=True))
        await is_begun.wait()
        await young.join()
        await old.leave()
        await changing
        return stages

    assert asyncio.run(change())[:3] == ["check", "first gateway a (old)", "first gateway a (young)"]


def test_change_is_halted_when_the_first_goes_and_nobody_takes_its_place(deployment, tmp_path):
    """It may have died of it."""

    async def change():
        fleet = Fleet(deployment, tmp_path / "kept.yaml", find_envoy(), drain_timeout_s=0)
        is_begun, only = asyncio.Event(), Stream(fleet, "only", is_deaf=True)
        await only.join()
        changing = asyncio.create_task(
            fleet.apply(add_version(deployment), lambda stage: "only" in stage and is_begun.set(), unhealthy_too=True)
        )
        await is_begun.wait()
        await only.leave()
        await changing

    with pytest.raises(FleetError, match="went away"):
        asyncio.run(change())


def add_version(deployment):
    """The deployment with another version."""
    versions = deployment.models["digits"]
    return dataclasses.replace(deployment, models={"digits": {**versions, 9: versions[1]}})
