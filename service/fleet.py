"""All that follow one deployment, and its change: first for one of each kind, then for all; a bad one is taken back."""

import asyncio
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from certs import ensure_certificates
from certs.files import replace_file
from service.control_plan import Planner, Way
from service.deployment import Deployment, DeploymentError
from service.deployment_file import format_deployment
from service.envoy_check import GatewayError, check
from service.follower import CLIENT, GATEWAY, Follower, FollowerError, Introduction, Place, Send
from service.gateway import render
from service.server_check import find_unserved
from service.xds_resources import Resources
from service.xds_types import XdsError

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


class FleetError(Exception):
    """A deployment that was not put in force; the text says why."""


class Fleet:
    """Followers of the deployment in force. All methods belong to one event loop.

    Parameters
    ----------
    deployment
        What is in force at first.
    file
        Where it is kept, so that a start goes on with what was in force.
    envoy
        Envoy's executable, which checks what is new.
    take_timeout_s
        How long a follower may take to go by what it was sent.
    drain_timeout_s
        How long calls to a version that goes may take to finish.

    Attributes
    ----------
    halted
        Why the last change was not put in force; empty where it was.
    """

    def __init__(
        self,
        deployment: Deployment,
        file: Path,
        envoy: Path,
        take_timeout_s: float = 30.0,
        drain_timeout_s: float = 30.0,
    ) -> None:
        self.deployment = deployment
        self.followers: list[Follower] = []
        self.halted = ""
        self._file = file
        self._envoy = envoy
        self._take_timeout_s = take_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._planner = Planner()
        self._resources: dict[Place, Resources] = {}
        self._changing = asyncio.Lock()

    async def find_resources(self, place: Place) -> Resources:
        """What is in force means this to a follower; XdsError where it cannot be made."""
        while (resources := self._resources.get(place)) is None:
            deployment = self.deployment
            read = await asyncio.to_thread(self._planner.read, place, deployment)
            # Another may have been put in force meanwhile.
            if deployment is self.deployment:
                self._resources[place] = read
        return resources

    async def join(self, who: Introduction, send: Send, dismiss: Callable[[], object]) -> Follower:
        """Take in a stream, which goes by what is in force until it leaves or is dismissed."""
        resources = await self.find_resources(who.place)
        follower = Follower(who, self.deployment, resources, send, dismiss)
        for each in self.followers:
            each.is_superseded |= each.is_of_name(who)
        self.followers.append(follower)
        log.info("joined", extra={"follower": str(follower), "identity": who.uri})
        return follower

    async def leave(self, follower: Follower) -> None:
        """Note the end of a stream."""
        self.followers.remove(follower)
        await follower.leave()
        log.info("left", extra={"follower": str(follower)})

    async def apply(self, new: Deployment, tell: Tell, *, unhealthy_too: bool = False) -> None:
        """Put a deployment in force, and return when all follow it.

        Parameters
        ----------
        unhealthy_too
            Whether versions without a healthy server may get traffic.

        Raises
        ------
        FleetError
            Another change is under way, or Envoy refuses it, or a version that is to get traffic has no healthy
            server, or a follower refuses it. Whoever had it already is back at what was in force before, which still
            is.
        """
        if self._changing.locked():
            raise FleetError("another change is under way")
        async with self._changing:
            try:
                await self._check(new, tell, unhealthy_too)
                await self._change(new, tell)
            except FleetError as error:
                self.halted = str(error)
                log.error("halted", extra={"reason": str(error)})
                raise
            self.halted = ""

    async def _check(self, new: Deployment, tell: Tell, unhealthy_too: bool) -> None:
        tell("check")
        if new.control is None:
            raise FleetError("expected 'control', which is missing")
        try:
            await asyncio.to_thread(check_deployment, new, self._envoy)
            unserved = [] if unhealthy_too else await find_unserved(self.deployment, new)
        except (GatewayError, OSError) as error:
            raise FleetError(str(error)) from None
        if unserved:
            raise FleetError("\n".join(unserved))

    async def _change(self, new: Deployment, tell: Tell) -> None:
        change = _Change(self._planner, self.deployment, new, self._take_timeout_s)
        try:
            await change.prepare({each.who.place for each in self.followers} | {Place(GATEWAY), Place(CLIENT)})
        except (XdsError, DeploymentError) as error:
            raise FleetError(str(error)) from None
        try:
            for kind in (GATEWAY, CLIENT):
                while (first := self._choose_first(kind)) and self._is_behind(first):
                    tell(f"first {first}")
                    await change.lead([first])
            while rest := [each for each in self.followers if self._is_behind(each)]:
                tell(f"{len(rest)} more")
                await change.lead(rest, may_leave=True)
        except (FollowerError, XdsError, DeploymentError) as error:
            tell("taking back")
            await change.take_back()
            raise FleetError(f"{error}\nWhat was in force before is again.") from None
        self._put_in_force(new)
        await self._end_old(change, tell)

    def _choose_first(self, kind: str) -> Follower | None:
        """The first of a kind by name; those that refuse what is in force have no say.

        Of a name it is the youngest: an Envoy that is being replaced takes any listener, and does not listen there.
        """
        of_kind = [each for each in self.followers if each.who.place.kind == kind and not each.is_refusing]
        return min(reversed(of_kind), key=lambda each: each.who.node, default=None)

    def _is_behind(self, follower: Follower) -> bool:
        return follower.deployment is self.deployment and not follower.is_refusing

    def keep(self) -> None:
        """Write down what is in force."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._file, format_deployment(self.deployment).encode())

    def _put_in_force(self, new: Deployment) -> None:
        self.deployment = new
        self.keep()
        self._resources = {}
        for follower in self.followers:
            if not new.control or follower.who.uri not in (*new.control.gateways, *new.control.clients):
                follower.dismiss()
        log.info("in force", extra={"followers": len(self.followers)})

    async def _end_old(self, change: "_Change", tell: Tell) -> None:
        if change.has_removals and self.followers:
            tell(f"end of the old in {self._drain_timeout_s:.0f} s")
            await asyncio.sleep(self._drain_timeout_s)
        await change.end(self.followers)


class _Change:
    """The way of each follower from one deployment to another."""

    def __init__(self, planner: Planner, old: Deployment, new: Deployment, timeout_s: float) -> None:
        self._planner = planner
        self._old, self._new = old, new
        self._timeout_s = timeout_s
        # There and back.
        self._ways: dict[Place, tuple[Way, Way]] = {}
        self._led: list[Follower] = []

    @property
    def has_removals(self) -> bool:
        return any(way.has_removals for way, _ in self._ways.values())

    async def prepare(self, places: Iterable[Place]) -> None:
        """Make what followers will be sent, on the way back too; XdsError, DeploymentError."""
        for place in places:
            await self._find_ways(place)

    async def lead(self, followers: Sequence[Follower], *, may_leave: bool = False) -> None:
        """Have some go by the new one, step by step, side by side; FollowerError when one does not.

        Parameters
        ----------
        may_leave
            Whether one may go meanwhile: it gets what is in force when it is back. One that is superseded may anyway.
        """
        self._led += followers
        for follower in followers:
            follower.deployment = self._new
        results = await asyncio.gather(*map(self._lead, followers), return_exceptions=True)
        for follower, result in zip(followers, results, strict=True):
            may_go = may_leave or follower.is_superseded
            if isinstance(result, BaseException) and not (follower.is_gone and may_go):
                raise result

    async def take_back(self) -> None:
        """Have all that were led go by the old one again, as far as they can."""
        await asyncio.gather(*(self._return(follower) for follower in self._led))

    async def end(self, followers: Iterable[Follower]) -> None:
        """Take away what only the old one had; those that had no say get the new one now."""
        await asyncio.gather(*map(self._end, followers))

    async def _end(self, follower: Follower) -> None:
        follower.deployment = self._new
        try:
            way, _ = await self._find_ways(follower.who.place)
            await follower.follow(way.end.resources, self._timeout_s)
        except (FollowerError, XdsError) as error:
            log.error("not ended", extra={"reason": str(error)})

    async def _lead(self, follower: Follower) -> None:
        way, _ = await self._find_ways(follower.who.place)
        for step in way.steps:
            await follower.follow(step.resources, self._timeout_s)

    async def _return(self, follower: Follower) -> None:
        follower.deployment = self._old
        if follower.who.place not in self._ways:
            # There was no way for it, so that it was sent nothing.
            return
        _, way_back = self._ways[follower.who.place]
        for step in (*way_back.steps, way_back.end):
            try:
                await follower.follow(step.resources, self._timeout_s)
            except FollowerError as error:
                log.error("not taken back", extra={"step": step.name, "reason": str(error)})

    async def _find_ways(self, place: Place) -> tuple[Way, Way]:
        if place not in self._ways:
            there = await asyncio.to_thread(self._planner.plan, place, self._old, self._new)
            self._ways[place] = there, await asyncio.to_thread(self._planner.plan, place, self._new, self._old)
        return self._ways[place]


def check_deployment(deployment: Deployment, envoy: Path) -> None:
    """Have Envoy check what gateways would be sent; GatewayError with what it says.

    Their certificates are theirs: others of the same names stand for them.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-control-") as folder:
        ensure_certificates(Path(folder))
        check(render(dataclasses.replace(deployment, certificates=Path(folder))), envoy)
