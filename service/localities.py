"""Where servers and gateways are, and which servers a gateway prefers."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Locality:
    """A region and a zone in it, by any names; an empty one is not known."""

    region: str = ""
    zone: str = ""

    def distance(self, other: "Locality") -> int:
        """0 in the same zone, or where this one is not known; 1 in the same region; else 2."""
        if not self.region:
            return 0
        if self.region != other.region:
            return 2
        return 0 if not self.zone or self.zone == other.zone else 1


NOWHERE = Locality()


def rank_localities(own: Locality, others: Iterable[Locality]) -> dict[Locality, int]:
    """Each locality's priority for a gateway, the nearest first: counted from 0 and without a gap, as Envoy asks."""
    distances = {other: own.distance(other) for other in others}
    ranks = {distance: rank for rank, distance in enumerate(sorted(set(distances.values())))}
    return {other: ranks[distance] for other, distance in sorted(distances.items())}
