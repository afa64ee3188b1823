"""What one follower of the control plane has asked for of one type of resource, was sent, and made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.xds_resources import Resource, find_version

EVERYTHING = "*"


@dataclass
class Subscription:
    """State of the world, one type: the protocol's rules of versions and nonces.

    Attributes
    ----------
    names
        What is asked for; None for all there is.
    sent
        Version of the last answer on this stream; empty before there was one.
    taken
        Version that the follower says it goes by.
    refused
        Version that it refused last, and in refusal its words.
    is_refusing
        Whether what it was sent last is what it refused.
    """

    names: frozenset[str] | None = frozenset()
    sent: str = ""
    taken: str = ""
    refused: str = ""
    refusal: str = ""
    is_refusing: bool = False
    _answers: int = 0
    # Whether the last answer has been taken or refused.
    _is_settled: bool = True
    _sent_names: frozenset[str] | None = frozenset()

    def begin(self, request: Any) -> None:
        """Take in a stream's first request, which wants an answer in any case.

        A follower that comes back may have dropped what it says that it goes by; where it has not, the same once more
        changes nothing.
        """
        asked = frozenset(request.resource_names)
        self.names = None if not asked or EVERYTHING in asked else asked
        self.taken = request.version_info

    def hear(self, request: Any) -> bool:
        """Take in a further request; whether it wants an answer even if nothing has changed.

        One that belongs to an earlier answer than the last means nothing: another will follow it.
        """
        if request.response_nonce != self._nonce:
            return False
        # A cluster that has changed asks for its servers anew, with the nonce of an answer that it has taken already.
        is_repeated = self._is_settled
        self._settle(request)
        if self.names is not None:
            self.names = frozenset(request.resource_names)
        return self.names != frozenset() and (is_repeated or self.names != self._sent_names)

    def has_taken(self, resources: Mapping[str, Resource]) -> bool:
        """Whether the follower goes by what it asks for among all resources of the type."""
        return self.names == frozenset() or self.taken == self.version_of(resources)

    def choose(self, resources: Mapping[str, Resource]) -> dict[str, Resource]:
        """Of all resources of the type, those that are asked for."""
        return {name: each for name, each in resources.items() if self.names is None or name in self.names}

    def version_of(self, resources: Mapping[str, Resource]) -> str:
        """Version of what is asked for among all resources of the type."""
        return find_version(self.choose(resources).items())

    def note_sent(self, version: str) -> str:
        """Note an answer; returns its nonce."""
        self.sent, self.is_refusing, self._is_settled = version, False, False
        self._sent_names = self.names
        self._answers += 1
        return self._nonce

    @property
    def _nonce(self) -> str:
        return str(self._answers) if self._answers else ""

    def _settle(self, request: Any) -> None:
        self._is_settled = True
        if request.HasField("error_detail"):
            self.refused, self.refusal, self.is_refusing = self.sent, request.error_detail.message, True
        elif self.sent:
            self.taken, self.is_refusing = self.sent, False
