"""Counts calls against rates: how full each bucket is, kept in memory or in Redis, for all that ask.

A bucket is one number, the time at which it would be full again (GCRA): a call moves it on by the time that the bucket
takes to gain one, and is refused if it then lay further ahead than the whole bucket takes to fill.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.limits import RateLimit

# So long that nobody finds a name whose key is another's; and all are as long, whatever callers are called.
KEY_BYTES = 16
DEFAULT_MAX_BUCKETS = 1_000_000
# Sums of times are exact to less than this.
ROUNDING_US = 1.0


class BucketsError(Exception):
    """Buckets cannot be reached; nothing was counted, or nobody knows."""


@dataclass(frozen=True)
class Take:
    """What a call takes of one bucket.

    Attributes
    ----------
    values
        What the call has of what the rate counts by, by its words, in the rate's order.
    """

    rate: RateLimit
    values: tuple[tuple[str, str], ...] = ()
    hits: int = 1

    @property
    def key(self) -> bytes:
        """The bucket's; not the rate's numbers, so that a change of these keeps the counts."""
        whole = json.dumps([self.rate.name, self.values]).encode()
        return hashlib.blake2b(whole, digest_size=KEY_BYTES).digest()

    @property
    def cost_us(self) -> float:
        """What it adds to the time at which the bucket is full again."""
        return self.hits * self.rate.interval_us

    @property
    def whole_us(self) -> float:
        """How long the bucket takes from empty to full."""
        return self.rate.burst * self.rate.interval_us


class Buckets(Protocol):
    """Where buckets are."""

    async def take(self, takes: Sequence[Take]) -> list[float]:
        """Take from all of some buckets, each its own, or from none.

        Returns
        -------
        list of float
            Of each take, after how many microseconds it would be granted: 0 for those that are. Nothing was taken
            unless all are 0.

        Raises
        ------
        BucketsError
            They cannot be reached.
        """

    async def check(self) -> None:
        """Return when they can be reached; BucketsError when they cannot."""

    async def close(self) -> None:
        """Let go of what they hold."""


class MemoryBuckets:
    """Buckets of one process.

    Parameters
    ----------
    max_buckets
        How many are kept: when there are more, the least recently used is forgotten, and its caller begins anew.
    clock
        Seconds, which never go back.
    """

    def __init__(self, max_buckets: int = DEFAULT_MAX_BUCKETS, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_buckets = max_buckets
        self._clock = clock
        # When each is full again, in microseconds, the least recently used first.
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    async def take(self, takes: Sequence[Take]) -> list[float]:
        """As Buckets says; never fails."""
        now = self._clock() * 1e6
        after = [max(self._full_at.get(take.key, now), now) + take.cost_us for take in takes]
        waits = [_find_wait(then - now - take.whole_us) for take, then in zip(takes, after, strict=True)]
        if not any(waits):
            for take, then in zip(takes, after, strict=True):
                self._full_at[take.key] = then
                self._full_at.move_to_end(take.key)
            self._forget(now)
        return waits

    async def check(self) -> None:
        """Nothing: they are here."""

    async def close(self) -> None:
        """Nothing: they end with the process."""

    def _forget(self, now: float) -> None:
        """Drop what is too much, and of the oldest two more that are full: a bucket that is full is none."""
        while len(self._full_at) > self._max_buckets:
            self._full_at.popitem(last=False)
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]


def _find_wait(excess_us: float) -> float:
    return excess_us if excess_us > ROUNDING_US else 0.0
