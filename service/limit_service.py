"""Envoy's rate-limit protocol: says of each call whether the limits of a deployment let it through, and when."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

from service.limit_buckets import Buckets, BucketsError, Take
from service.limit_filters import NAME_KEY, write_refusal
from service.limits import RateLimit

logger = logging.getLogger(__name__)

OK, OVER_LIMIT = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
# After the buckets could not be reached, nobody waits for them again for so long.
PAUSE_S = 0.5
# Of a call that takes more than a bucket holds: it is never let through.
MAX_RETRY_NS = 2**62
# More than any gateway of ours asks for at once.
MAX_DESCRIPTORS = 256


class LimitServicer(rls_pb2_grpc.RateLimitServiceServicer):
    """Answers by the rates of a deployment; made for grpcio's asyncio server.

    Attributes
    ----------
    rates
        Those in force, by name. Replaced as a whole when the deployment file changes.
    let_through, refused
        How many calls were, by the name of each limit that they counted for, or that refused them.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.rates: Mapping[str, RateLimit] = {}
        self.let_through: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._buckets = buckets
        self._unknown: set[str] = set()
        self._resume_at = 0.0

    async def ShouldRateLimit(self, request, context):  # noqa: N802 - the protocol's name
        """Say whether a call is let through; UNAVAILABLE when nobody knows: gateways have been told what to do then."""
        if len(request.descriptors) > MAX_DESCRIPTORS:
            text = f"descriptors: expected at most {MAX_DESCRIPTORS}, given {len(request.descriptors)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        asked = [self._read_take(descriptor, request.hits_addend) for descriptor in request.descriptors]
        # Of one bucket a call takes once, however often it is asked for.
        takes = list({take.key: take for take in asked if take is not None}.values())
        try:
            waits = await self._take(takes)
        except BucketsError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        self._count(takes, waits)
        return _answer(asked, takes, waits)

    async def check(self) -> None:
        """Return when the buckets can be reached, which ends a pause; BucketsError when they cannot."""
        try:
            await self._buckets.check()
        except BucketsError:
            self._pause()
            raise
        self._resume_at = 0.0

    async def _take(self, takes: list[Take]) -> list[float]:
        if not takes:
            return []
        if time.monotonic() < self._resume_at:
            raise BucketsError("counts could not be reached a moment ago")
        try:
            return await self._buckets.take(takes)
        except BucketsError:
            self._pause()
            raise

    def _pause(self) -> None:
        self._resume_at = time.monotonic() + PAUSE_S

    def _read_take(self, descriptor: ratelimit_pb2.RateLimitDescriptor, hits: int) -> Take | None:
        """What a descriptor takes; None when it is of a limit that is not known here, which is said once."""
        entries = [(entry.key, entry.value) for entry in descriptor.entries]
        name = entries[0][1] if entries and entries[0][0] == NAME_KEY else ""
        rate = self.rates.get(name)
        if rate is None or tuple(key for key, _ in entries[1:]) != rate.by:
            if name not in self._unknown and len(self._unknown) < MAX_DESCRIPTORS:
                self._unknown.add(name)
                logger.warning("a gateway asks for a limit that is not declared so here", extra={"limit": name[:64]})
            return None
        own = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else hits or 1
        return Take(rate, tuple(entries[1:]), own)

    def _count(self, takes: Sequence[Take], waits: Sequence[float]) -> None:
        """A call that one limit refuses counts for that one alone: the others lose nothing by it."""
        if any(waits):
            self.refused.update(take.rate.name for take, wait in zip(takes, waits, strict=True) if wait)
        else:
            self.let_through.update(take.rate.name for take in takes)


def _answer(asked: Sequence[Take | None], takes: Sequence[Take], waits: Sequence[float]) -> rls_pb2.RateLimitResponse:
    """The protocol's answer, a status for each descriptor; what is not known here passes."""
    refusing = {take.key: wait for take, wait in zip(takes, waits, strict=True) if wait}
    answer = rls_pb2.RateLimitResponse(overall_code=OVER_LIMIT if refusing else OK)
    for take in asked:
        answer.statuses.add(code=OVER_LIMIT if take is not None and take.key in refusing else OK)
    if refusing:
        # The one that lasts longest: before that is over, nothing is let through.
        wait_us, take = max(zip(waits, takes, strict=True), key=lambda pair: pair[0])
        answer.response_headers_to_add.extend(_write_headers(take.rate, wait_us))
    return answer


def _write_headers(rate: RateLimit, wait_us: float) -> list[base_pb2.HeaderValue]:
    headers = write_refusal(rate.refusal, min(int(wait_us * 1000) + 1, MAX_RETRY_NS))
    return [base_pb2.HeaderValue(key=key, value=value) for key, value in headers.items()]
