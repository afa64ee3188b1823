"""Buckets that several limit services share, in Redis; each call is one atomic script, by Redis's own clock."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.limit_buckets import BucketsError, Take

if TYPE_CHECKING:
    from redis.asyncio import Redis

# In braces what a cluster of Redis places keys by: those of one call must lie together.
PREFIX = b"sluice:{limits}:"
MAX_CONNECTIONS = 64
# KEYS are buckets; ARGV has for each what the call adds, and the time from empty to full, in microseconds. Times are
# told from 2024 on, so that a double holds fractions of a microsecond. What lies further ahead than a full bucket can
# was written before the clock was set back, and would refuse for as long as that was. A microsecond is rounding.
SCRIPT = """
local time = redis.call('TIME')
local now = (time[1] - 1704067200) * 1000000 + time[2]
local waits, after, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local cost, whole = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local full_at = tonumber(redis.call('GET', key) or now)
  after[i] = math.max(now, math.min(full_at, now + whole)) + cost
  local wait = after[i] - now - whole
  if wait > 1 then refused = true else wait = 0 end
  waits[i] = string.format('%.3f', wait)
end
if not refused then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.17g', after[i]), 'PX', math.max(1, math.ceil((after[i] - now) / 1000)))
  end
end
return waits
"""


class RedisError(Exception):
    """Redis cannot be used at all; the text says why."""


class RedisBuckets:
    """As Buckets says; made inside the running loop.

    Parameters
    ----------
    url
        As `redis://host:6379/0`, `rediss://…` with TLS, or `unix://path`.
    timeout_s
        How long connecting, and an answer, may take.

    Raises
    ------
    RedisError
        The client library is missing, or the URL is none.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._redis = _open(url, timeout_s)
        self._script = self._redis.register_script(SCRIPT)

    async def take(self, takes: Sequence[Take]) -> list[float]:
        """As Buckets says; a take that fails may have been counted."""
        from redis.exceptions import RedisError as ClientError

        keys = [PREFIX + take.key for take in takes]
        numbers = [repr(number) for take in takes for number in (take.cost_us, take.whole_us)]
        try:
            return [float(wait) for wait in await self._script(keys, numbers)]
        except (ClientError, OSError, TimeoutError) as error:
            raise BucketsError(f"Redis: {error}") from error

    async def check(self) -> None:
        """As Buckets says."""
        from redis.exceptions import RedisError as ClientError

        try:
            await self._redis.ping()
        except (ClientError, OSError, TimeoutError) as error:
            raise BucketsError(f"Redis: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose(close_connection_pool=True)


def _open(url: str, timeout_s: float) -> "Redis":
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError
    except ImportError:
        raise RedisError('the Redis client is missing: pip install "sluice-serving[redis]"') from None
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once more at once, for a connection that Redis has closed since; a call may count twice then.
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )
    except ValueError as error:
        raise RedisError(f"Redis: {error}") from None
    return Redis(connection_pool=pool)
