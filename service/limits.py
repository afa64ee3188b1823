"""How much is let through: rates by who calls and what for, and what a model takes at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from certs.identities import LIMITS_URI
from service.deployment import DeploymentError, Endpoint

PERIODS_S = {"second": 1, "minute": 60, "hour": 3600}
LOCAL, GLOBAL = "local", "global"
ALLOW, REFUSE = "allow", "refuse"
# Buckets that a gateway keeps for one local rule: the least recently used goes when there are more.
DEFAULT_MAX_BUCKETS = 10_000


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """At most so many calls in a time, for each value of what they are counted by.

    Attributes
    ----------
    by
        What has a bucket of its own: any of subject, tenant, model, certificate and action; empty counts all together.
    burst
        Size of a bucket: how many calls may come at once after a pause.
    scope
        LOCAL counts at each gateway by itself, GLOBAL at the limit service for all gateways.
    models, subjects, tenants, certificates, actions
        Which calls count: those with one of the values in each that is not empty.
    max_buckets
        How many a gateway keeps of a local one.
    """

    name: str
    requests: int
    per: str
    burst: int
    by: tuple[str, ...] = ()
    scope: str = LOCAL
    models: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    max_buckets: int = DEFAULT_MAX_BUCKETS

    @property
    def matches(self) -> Mapping[str, tuple[str, ...]]:
        """What a call must have to count, by the words of `by`."""
        fields = {
            "model": self.models,
            "subject": self.subjects,
            "tenant": self.tenants,
            "certificate": self.certificates,
            "action": self.actions,
        }
        return {key: values for key, values in fields.items() if values}

    @property
    def interval_us(self) -> float:
        """How long a bucket takes to gain the right to one call."""
        return PERIODS_S[self.per] * 1e6 / self.requests

    @property
    def retry_ns(self) -> int:
        """After how long an empty bucket lets one call through, unless another takes it."""
        return math.ceil(self.interval_us * 1000)

    @property
    def refusal(self) -> str:
        """What a caller is told who is refused."""
        each = f" for each {' and '.join(self.by)}" if self.by else ""
        return (
            f"limit {self.name!r}: expected at most {self.requests} requests a {self.per}{each}, {self.burst} at once; "
            "try again after the delay in the details"
        )


@dataclass(frozen=True, kw_only=True)
class LimitService:
    """Who counts for all gateways.

    Attributes
    ----------
    timeout_ms
        How long a call may wait for its answer.
    on_failure
        ALLOW lets calls through that cannot be counted, REFUSE does not.
    identity
        URI name that it must prove.
    """

    endpoints: tuple[Endpoint, ...]
    timeout_ms: int = 50
    on_failure: str = ALLOW
    identity: str = LIMITS_URI


@dataclass(frozen=True, kw_only=True)
class ModelLimit:
    """What a model takes; None sets no bound of its own.

    Attributes
    ----------
    max_calls
        Calls under way at a time at each version, of one gateway.
    max_message_bytes
        Of a call that is no stream.
    """

    max_calls: int | None = None
    max_message_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """All limits of a deployment.

    Raises
    ------
    DeploymentError
        Two rates of one name, or a global one without a service that counts.
    """

    rates: tuple[RateLimit, ...] = ()
    service: LimitService | None = None
    models: Mapping[str, ModelLimit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", MappingProxyType(dict(sorted(self.models.items()))))
        seen: set[str] = set()
        for place, rate in enumerate(self.rates):
            if rate.name in seen:
                raise DeploymentError(
                    f"limit {rate.name!r}: expected each name once, given it twice", ("limits", place, "name")
                )
            seen.add(rate.name)
            if rate.scope == GLOBAL and self.service is None:
                raise DeploymentError(
                    f"limit {rate.name!r}: expected 'limit_service' beside it, since its scope is global",
                    ("limits", place, "scope"),
                )

    @property
    def local(self) -> tuple[RateLimit, ...]:
        """Those that each gateway counts by itself."""
        return tuple(rate for rate in self.rates if rate.scope == LOCAL)

    @property
    def shared(self) -> tuple[RateLimit, ...]:
        """Those that are counted for all gateways."""
        return tuple(rate for rate in self.rates if rate.scope == GLOBAL)

    def check_models(self, known: Sequence[str]) -> None:
        """Raise DeploymentError for a model that is not among those known."""
        named = [(model, ("model_limits", model)) for model in self.models]
        named += [
            (model, ("limits", place, "models", index))
            for place, rate in enumerate(self.rates)
            for index, model in enumerate(rate.models)
        ]
        for model, path in named:
            if model not in known:
                raise DeploymentError(f"expected one of the models {', '.join(known)}, given {model!r}", path)
