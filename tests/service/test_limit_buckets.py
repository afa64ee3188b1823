"""Buckets, in memory and in a real Redis: how much they let through, for whom, and when again."""

import asyncio
import tempfile
import time
from pathlib import Path

import pytest

from service.limit_buckets import BucketsError, MemoryBuckets, Take
from service.limits import RateLimit
from service.redis_buckets import PREFIX, RedisBuckets, RedisError
from tests.redis_server import RedisServer, needs_redis

TIMEOUT_S = 10.0
HOUR_US = 3600e6


@pytest.fixture(scope="module")
def redis():
    """A Redis server."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        server = RedisServer(Path(folder))
        yield server
        server.kill()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
def run(request):
    """Runs a coroutine function with fresh buckets."""

    def run(use):
        async def main():
            if request.param == "memory":
                return await use(MemoryBuckets())
            buckets = RedisBuckets(request.getfixturevalue("redis").url, TIMEOUT_S)
            try:
                return await use(buckets)
            finally:
                await buckets.close()

        return asyncio.run(main())

    return run


@pytest.fixture
def make_rate(request):
    """Makes a rate with a name of this test's own."""

    def make(suffix="", **options):
        return RateLimit(name=f"{request.node.name}{suffix}", **{"requests": 1, "per": "hour", "burst": 3, **options})

    return make


def test_bucket_lets_its_burst_through_and_says_when_there_is_more(run, make_rate):
    """The wait is what is left of the time for one call; a refused call costs nothing."""
    take = Take(make_rate())

    async def use(buckets):
        return [await buckets.take([take]) for _ in range(5)]

    *granted, fourth, fifth = run(use)
    assert granted == [[0], [0], [0]]
    assert HOUR_US - 60e6 < fifth[0] <= fourth[0] <= HOUR_US


def test_bucket_fills_again(run, make_rate):
    """At 1,000 a second the right to one is there after a millisecond, and no more than the burst after any time."""
    take = Take(make_rate(requests=1000, per="second", burst=2))

    async def use(buckets):
        counts = []
        for _ in range(2):
            await asyncio.sleep(0.05)
            start = time.monotonic()
            results = [await buckets.take([take]) for _ in range(20)]
            counts.append((sum(not any(waits) for waits in results), (time.monotonic() - start) * 1000))
        return counts

    for granted, elapsed_ms in run(use):
        assert 2 <= granted <= 2 + elapsed_ms + 1


def test_callers_have_buckets_of_their_own_whatever_they_are_called(run, make_rate):
    """No name, or pair of names, is taken for another, and none makes a key long."""
    rate = make_rate(burst=1, by=("subject", "tenant"))
    pairs = [("a", "b"), ("a,b", ""), ("", "a,b"), ('a","b', ""), ("ab", ""), ("a\0", "b"), ("ü" * 9000, "\r\n* 😀")]
    takes = [Take(rate, (("subject", one), ("tenant", two))) for one, two in pairs]
    assert {len(take.key) for take in takes} == {16}

    async def use(buckets):
        return [[(await buckets.take([take]))[0] > 0 for take in takes] for _ in range(2)]

    assert run(use) == [[False] * len(pairs), [True] * len(pairs)]


def test_all_of_some_buckets_are_taken_from_or_none(run, make_rate):
    """What one limit refuses costs nothing of the others."""
    wide, narrow = Take(make_rate("-wide", burst=3)), Take(make_rate("-narrow", burst=1))

    async def use(buckets):
        first = await buckets.take([wide, narrow])
        refused = [await buckets.take([wide, narrow]) for _ in range(5)]
        return first, refused, [await buckets.take([wide]) for _ in range(3)]

    first, refused, rest = run(use)
    assert first == [0, 0]
    assert all(waits[0] == 0 < waits[1] for waits in refused)
    assert [waits[0] > 0 for waits in rest] == [False, False, True]


def test_call_of_more_hits_than_the_burst_is_never_let_through(run, make_rate):
    """It takes nothing; as many as the burst at once are let through, and none at all always."""
    rate = make_rate(burst=3)

    async def use(buckets):
        return [(await buckets.take([Take(rate, hits=hits)]))[0] > 0 for hits in (4, 3, 1, 0)]

    assert run(use) == [True, False, True, False]


def test_rate_that_changes_keeps_what_was_counted(run, make_rate):
    """A smaller burst holds at once: nobody has more to wait than the whole of the new bucket."""
    large, small = make_rate(requests=10, burst=10), make_rate(requests=3600, burst=2)

    async def use(buckets):
        for _ in range(10):
            assert await buckets.take([Take(large)]) == [0]
        return (await buckets.take([Take(small)]))[0]

    assert run(use) > 0


@needs_redis
def test_services_that_share_a_redis_let_through_no_more_than_one(redis, make_rate):
    """Forty calls at once by two services."""
    take = Take(make_rate(burst=7))

    async def use():
        both = [RedisBuckets(redis.url, TIMEOUT_S) for _ in range(2)]
        results = await asyncio.gather(*(both[number % 2].take([take]) for number in range(40)))
        for buckets in both:
            await buckets.close()
        return results

    assert sum(waits == [0] for waits in asyncio.run(use())) == 7


@needs_redis
def test_clock_of_redis_that_is_set_back_refuses_for_no_longer_than_a_bucket(redis, make_rate):
    """The time of a year from now, as if it had been written before; and the key goes once its bucket is full."""
    take = Take(make_rate(requests=3600, burst=2))

    async def use():
        buckets = RedisBuckets(redis.url, TIMEOUT_S)
        client = buckets._redis
        await client.set(PREFIX + take.key, repr(3e15))
        waits = await buckets.take([take])
        await client.delete(PREFIX + take.key)
        await buckets.take([take])
        left_ms = await client.pttl(PREFIX + take.key)
        await buckets.close()
        return waits, left_ms

    [wait_us], left_ms = asyncio.run(use())
    assert wait_us == pytest.approx(1e6)
    assert 0 < left_ms <= 1000


def test_flood_of_callers_stays_within_bounds():
    """The least recently used goes; full ones go by themselves."""
    now = [0.0]
    buckets = MemoryBuckets(100, lambda: now[0])
    rate = RateLimit(name="x", requests=1, per="second", burst=1, by=("subject",))

    async def use():
        for number in range(5000):
            assert await buckets.take([Take(rate, (("subject", str(number)),))]) == [0]
            assert len(buckets) <= 100
        assert (await buckets.take([Take(rate, (("subject", "4999"),))]))[0] > 0
        for number in range(100):
            now[0] = 10.0 + number
            assert await buckets.take([Take(rate, (("subject", "late"),))]) == [0]

    asyncio.run(use())
    assert len(buckets) == 1


@needs_redis
def test_redis_that_is_gone_or_hangs_is_an_error_and_is_found_again(make_rate):
    """A script is not lost with the server that held it."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        server, take = RedisServer(Path(folder)), Take(make_rate(burst=2))

        async def use():
            buckets = RedisBuckets(server.url, 0.2)
            assert await buckets.take([take]) == [0]
            server.hang()
            for _ in range(3):
                with pytest.raises(BucketsError):
                    await buckets.take([take])
            server.kill()
            for attempt in (buckets.take([take]), buckets.check()):
                with pytest.raises(BucketsError, match="Redis: "):
                    await attempt
            server.start()
            assert [(await buckets.take([take]))[0] > 0 for _ in range(3)] == [False, False, True]
            await buckets.close()

        asyncio.run(use())
        server.kill()


def test_url_that_is_none_is_refused():
    """Before anything is served."""
    with pytest.raises(RedisError, match="Redis: "):
        RedisBuckets("memcached://x", 1.0)
