"""How a model's calls find their version and their server, besides the weights."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.deployment_error import DeploymentError
from service.headers import TOKEN_HEADER, VERSION_HEADER

# The sum of the weights where callers stay: Envoy draws by a hash modulo the sum, so that another sum would draw
# everybody anew.
WHOLE = 100
SEQUENCE_ID = "sequence_id"


@dataclass(frozen=True)
class CallKey:
    """What of a call decides where it goes; calls with the same stay together. Exactly one is not empty.

    Attributes
    ----------
    header
        A header that the client sends.
    claim
        A claim of the caller's token, which has been verified.
    message
        A field of the message: SEQUENCE_ID.
    """

    header: str = ""
    claim: str = ""
    message: str = ""


@dataclass(frozen=True)
class Shadow:
    """A version that gets a copy of some of the model's calls, and whose answers nobody sees."""

    version: int
    percent: int


@dataclass(frozen=True)
class Routing:
    """What is declared of one model's calls.

    Attributes
    ----------
    sticky
        Calls with the same stay at one version, as long as the weights do.
    affinity
        Calls with the same stay at one version and one of its servers: those of a sequence.
    shadow
        Who gets copies.
    regions
        Servers elsewhere are never called; none: all are.
    idempotency
        Calls with the same idempotency key stay at one version and one of its servers, which knows the key.
    sequences
        Calls may be those of sequences: none that a server has begun is sent again.
    """

    sticky: CallKey | None = None
    affinity: CallKey | None = None
    shadow: Shadow | None = None
    regions: tuple[str, ...] = ()
    idempotency: bool = False
    sequences: bool = False

    @property
    def keeps_sequences(self) -> bool:
        """Whether a call that a server has begun may have changed what the next one is answered."""
        return self.sequences or self.affinity is not None

    @property
    def is_hashed(self) -> bool:
        """Whether some calls are to meet the same server again, not only the same version."""
        return self.affinity is not None or self.idempotency

    @property
    def key(self) -> CallKey | None:
        """What decides where a call goes, if not chance."""
        return self.affinity or self.sticky

    @property
    def keeps_versions(self) -> bool:
        """Whether some calls are to meet the same version again, for which Envoy draws it by a hash of theirs."""
        return self.key is not None or self.idempotency


NO_ROUTING = Routing()


def check_routing(model: str, routing: Routing, weights: Mapping[int, int], *, has_tokens: bool) -> None:
    """Raise DeploymentError for what a model with these weights by version cannot have."""
    path = ("models", model)
    if routing.key and routing.key.claim and not has_tokens:
        raise DeploymentError(
            f"model {model!r}: expected issuers of tokens in 'access', since nobody else has claims to stay by", path
        )
    if routing.affinity and routing.sticky:
        raise DeploymentError(
            f"model {model!r}: expected 'affinity' or 'sticky': what keeps a sequence at one server keeps it at one "
            "version as well",
            (*path, "sticky"),
        )
    if routing.key and routing.key.header in (VERSION_HEADER, TOKEN_HEADER):
        raise DeploymentError(f"model {model!r}: expected another header: the gateway removes a client's own", path)
    if routing.keeps_versions and sum(weights.values()) != WHOLE and sum(map(bool, weights.values())) > 1:
        raise DeploymentError(
            f"model {model!r}: expected weights whose sum is {WHOLE}, since its callers or keys stay at their version: "
            f"another sum would draw all of them anew; given {sum(weights.values())}",
            (*path, "versions"),
        )
    if routing.shadow and routing.shadow.version not in weights:
        known = ", ".join(map(str, weights))
        raise DeploymentError(
            f"model {model!r}: expected as shadow one of versions {known}, given {routing.shadow.version}",
            (*path, "shadow", "version"),
        )
