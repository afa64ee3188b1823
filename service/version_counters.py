"""What a gateway has counted of each version's calls: how many, how they ended, how long they took, who is healthy."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from service.deployment import cluster_name
from service.running_gateway import RunningGateway

# To end a call is a client's choice and says nothing of the version.
NO_ERRORS = ("0", "1")


@dataclass(frozen=True)
class VersionCounters:
    """Counts of one version, since its gateway's start or since earlier counts.

    Attributes
    ----------
    calls
        Those that ended, for which this version was chosen, be it by weight or by name.
    failed
        Of them, those that ended with another status than OK and CANCELLED.
    sent_again
        Attempts that failed here and that the gateway repeated, mostly with another version: no client saw them.
    healthy, servers
        Of this moment: how many servers are healthy, and how many there are.
    times
        How many calls took from so many to so many milliseconds.
    """

    calls: int = 0
    failed: int = 0
    sent_again: int = 0
    healthy: int = 0
    servers: int = 0
    times: Mapping[tuple[float, float], int] = field(default_factory=dict)

    @property
    def error_share(self) -> float:
        """The part of the calls, from 0 to 1, that failed here, whether or not the gateway could make up for it."""
        return min(1.0, (self.failed + self.sent_again) / self.calls) if self.calls else float(self.sent_again > 0)

    def since(self, earlier: "VersionCounters") -> "VersionCounters":
        """What has come since earlier counts of the same gateway."""
        return VersionCounters(
            self.calls - earlier.calls,
            self.failed - earlier.failed,
            self.sent_again - earlier.sent_again,
            self.healthy,
            self.servers,
            {bounds: count - earlier.times.get(bounds, 0) for bounds, count in self.times.items()},
        )

    def find_percentile_ms(self, part: float) -> float | None:
        """What a part of the calls, from 0 to 1, took at most, in milliseconds; None where no time is known yet."""
        wanted = part * sum(self.times.values())
        passed = 0
        for (lower, upper), count in sorted(self.times.items()):
            passed += count
            if count > 0 and passed >= wanted:
                return (lower + upper) / 2
        return None


def read_counters(gateway: RunningGateway, model: str, numbers: Iterable[int]) -> dict[int, VersionCounters]:
    """Counts since the gateway's start, by version number; raises AdminError."""
    clusters = {number: cluster_name(model, number) for number in numbers}
    names = "|".join(map(re.escape, clusters.values()))
    counts = r"grpc\.\d+|retry\.upstream_rq_completed|membership_healthy|membership_total"
    numbers_read = gateway.find_numbers(rf"cluster\.({names})\.({counts})")
    return {number: _count(gateway, f"cluster.{cluster}.", numbers_read) for number, cluster in clusters.items()}


def _count(gateway: RunningGateway, prefix: str, numbers: Mapping[str, int]) -> VersionCounters:
    own = {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}
    ends = {name.removeprefix("grpc."): value for name, value in own.items() if name.startswith("grpc.")}
    return VersionCounters(
        calls=sum(ends.values()),
        failed=sum(value for status, value in ends.items() if status not in NO_ERRORS),
        sent_again=own.get("retry.upstream_rq_completed", 0),
        healthy=own.get("membership_healthy", 0),
        servers=own.get("membership_total", 0),
        times=gateway.read_histogram(f"{prefix}upstream_rq_time"),
    )
