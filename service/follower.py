"""One gateway or gRPC client on its stream to the control plane: what it is to go by, is sent, and says of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from service.ads_subscription import Subscription
from service.deployment import Deployment, Endpoint
from service.xds_resources import SEND_ORDER, Resources

GATEWAY, CLIENT = "gateway", "client"
Send = Callable[[DiscoveryResponse], Awaitable[None]]


class FollowerError(Exception):
    """A follower does not go by what it was sent; the text says which, and why."""


@dataclass(frozen=True)
class Place:
    """What a deployment means differs by this: a gateway or a client, and where that gateway listens if it says so."""

    kind: str
    gateway: Endpoint | None = None
    operator: Endpoint | None = None


@dataclass(frozen=True)
class Introduction:
    """Who a follower is: its own name for itself, the URI that it proved, and whence it came."""

    node: str
    uri: str
    address: str
    place: Place


class Follower:
    """A stream. All methods belong to one event loop.

    Attributes
    ----------
    deployment
        What it is to go by, in the end.
    dismiss
        Ends its stream.
    is_gone
        Whether its stream has ended.
    is_superseded
        Whether a younger one has its name: it is being replaced.
    """

    def __init__(
        self,
        who: Introduction,
        deployment: Deployment,
        resources: Resources,
        send: Send,
        dismiss: Callable[[], object],
    ) -> None:
        self.who = who
        self.dismiss = dismiss
        self.deployment = deployment
        self.since = datetime.now(UTC)
        self.subscriptions: dict[str, Subscription] = {}
        self._resources = resources
        self._send = send
        # Answers to its requests and what is new are sent by different tasks.
        self._sending = asyncio.Lock()
        self._changed = asyncio.Condition()
        self.is_gone = False
        self.is_superseded = False

    def __str__(self) -> str:
        return f"{self.who.place.kind} {self.who.node} ({self.who.address})"

    @property
    def is_refusing(self) -> bool:
        """Whether it has refused something that it was sent last."""
        return any(each.is_refusing for each in self.subscriptions.values())

    def is_of_name(self, who: Introduction) -> bool:
        """Whether it says that it is the same one."""
        return (self.who.place.kind, self.who.node, self.who.uri) == (who.place.kind, who.node, who.uri)

    async def hear(self, request: DiscoveryRequest) -> None:
        """Take in a request, and answer it where it wants that; types that there are not stay unanswered."""
        kind = request.type_url
        if kind not in SEND_ORDER:
            return
        if subscription := self.subscriptions.get(kind):
            wants_answer = subscription.hear(request)
        else:
            self.subscriptions[kind] = Subscription()
            self.subscriptions[kind].begin(request)
            wants_answer = True
        if wants_answer:
            await self._answer(kind)
        await self._tell()

    async def follow(self, resources: Resources, timeout_s: float) -> None:
        """Have it go by other resources; returns when it does.

        Raises
        ------
        FollowerError
            It refuses something, has gone, or does not say for `timeout_s` that it has taken all.
        """
        self._resources = resources
        try:
            async with asyncio.timeout(timeout_s):
                await self._send_new()
                async with self._changed:
                    await self._changed.wait_for(lambda: self.is_gone or self.is_refusing or not self._list_untaken())
        except TimeoutError:
            untaken = ", ".join(map(shorten_type, self._list_untaken()))
            raise FollowerError(f"{self} has not taken {untaken} within {timeout_s:.0f} s") from None
        if self.is_gone:
            raise FollowerError(f"{self} went away")
        for kind, subscription in self.subscriptions.items():
            if subscription.is_refusing:
                raise FollowerError(f"{self} refuses {shorten_type(kind)}: {subscription.refusal}")

    async def leave(self) -> None:
        """Note that its stream has ended."""
        self.is_gone = True
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _list_untaken(self) -> list[str]:
        return [
            kind
            for kind, subscription in self.subscriptions.items()
            if not subscription.has_taken(self._resources.get(kind, {}))
        ]

    async def _send_new(self) -> None:
        for kind in sorted(self.subscriptions, key=SEND_ORDER.index):
            subscription = self.subscriptions[kind]
            if subscription.names != frozenset() and subscription.sent != self._find_version(kind):
                await self._answer(kind)

    async def _answer(self, kind: str) -> None:
        async with self._sending:
            subscription, version = self.subscriptions[kind], self._find_version(kind)
            chosen = subscription.choose(self._resources.get(kind, {}))
            answer = DiscoveryResponse(
                version_info=version,
                resources=[resource.message for resource in chosen.values()],
                type_url=kind,
                nonce=subscription.note_sent(version),
            )
            await self._send(answer)

    def _find_version(self, kind: str) -> str:
        return self.subscriptions[kind].version_of(self._resources.get(kind, {}))


def describe(follower: Follower) -> dict[str, Any]:
    """What `sluice control show` says of a follower."""
    who = follower.who
    return {
        "kind": who.place.kind,
        "node": who.node,
        "identity": who.uri,
        "address": who.address,
        "since": follower.since.isoformat(timespec="seconds"),
        "types": {
            shorten_type(kind): {
                "sent": subscription.sent,
                "acked": subscription.taken,
                "nacked": subscription.refused,
                "reason": subscription.refusal,
            }
            for kind, subscription in sorted(follower.subscriptions.items(), key=lambda pair: SEND_ORDER.index(pair[0]))
        },
    }


def shorten_type(kind: str) -> str:
    """A type by its last name."""
    return kind.rpartition(".")[2]
