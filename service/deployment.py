"""The model of a deployment that the gateway is rendered from: models, versions, weights and where they are served."""

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from certs.identities import OPERATOR_URI, SERVICE_URI
from service.deployment_error import DeploymentError
from service.localities import NOWHERE, Locality
from service.model_routing import NO_ROUTING, Routing, check_routing

if TYPE_CHECKING:
    from service.access_policy import AccessPolicy

# Names become parts of file names, cluster names and runtime keys.
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
WEIGHTS_PREFIX = "sluice.weights"
SHADOW_PREFIX = "sluice.shadow"
MAX_WEIGHT = 1_000_000
MAX_VERSION = 10**18 - 1
SPLIT_FORM = "VERSION=WEIGHT,VERSION=WEIGHT"
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, order=True)
class Endpoint:
    """Where something listens: an address and a TCP port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not self.host:
            raise DeploymentError("endpoint: expected a host, given an empty one")
        if not 0 < self.port < 65536:
            raise DeploymentError(f"endpoint {self.host}: expected a port from 1 to 65535, given {self.port}")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, path: tuple[str | int, ...] = ()) -> "Endpoint":
        """Read `127.0.0.1:8001` or `[::1]:8001`; DeploymentError, with the path, for anything else."""
        host, _, port = text.rpartition(":")
        try:
            return cls(str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port))
        except ValueError:
            raise DeploymentError(f"expected an IP address and a port from 1 to 65535, given {text!r}", path) from None


@dataclasses.dataclass(frozen=True)
class Version:
    """One version of a model: its share of the model's traffic, relative to the other versions', and its servers."""

    weight: int
    endpoints: tuple[Endpoint, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deployment:
    """Everything that the gateway's configuration depends on.

    Attributes
    ----------
    models
        Versions by model name and version number. A version of weight 0 gets no traffic but that which asks for it.
    certificates
        Folder with the files of certs.identities.
    operators
        URI names in certificates that may use the operator listener.
    service_identity
        URI name that every server behind the gateway must prove.
    routing
        By model name, of those that have more than weights.
    localities
        Where servers are, of those of which it is known.
    locality
        Where the gateway is.
    access
        Who may do what; None lets every client with a certificate do all that the gateway passes on.

    Raises
    ------
    DeploymentError
        A name, weight, version or endpoint that cannot be used.
    """

    models: Mapping[str, Mapping[int, Version]]
    gateway: Endpoint
    operator: Endpoint
    certificates: Path
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    operators: tuple[str, ...] = (OPERATOR_URI,)
    service_identity: str = SERVICE_URI
    routing: Mapping[str, Routing] = dataclasses.field(default_factory=dict)
    localities: Mapping[Endpoint, Locality] = dataclasses.field(default_factory=dict)
    locality: Locality = NOWHERE
    access: "AccessPolicy | None" = None

    def __post_init__(self) -> None:
        if not self.models:
            raise DeploymentError("expected at least one model, given none")
        if self.gateway == self.operator:
            raise DeploymentError(
                f"gateway and operator listener: expected two endpoints, given {self.gateway} for both",
                ("gateway", "operator"),
            )
        for model, versions in self.models.items():
            _check_model(model, versions)
            has_tokens = self.access is not None and bool(self.access.issuers)
            check_routing(model, self.routing_of(model), self.weights(model), has_tokens=has_tokens)
            for number in versions:
                _check_servers(model, number, self.servers(model, number), self.routing_of(model))
        frozen = {model: MappingProxyType(dict(sorted(versions.items()))) for model, versions in self.models.items()}
        object.__setattr__(self, "models", MappingProxyType(dict(sorted(frozen.items()))))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every server of any version, each once."""
        versions = (version for versions in self.models.values() for version in versions.values())
        return tuple(sorted({endpoint for version in versions for endpoint in version.endpoints}))

    def routing_of(self, model: str) -> Routing:
        """What is declared of a model's calls besides its weights."""
        return self.routing.get(model, NO_ROUTING)

    def servers(self, model: str, number: int) -> tuple[Endpoint, ...]:
        """The servers of a version that may be called: those in the model's regions, where it has any."""
        endpoints, regions = self.models[model][number].endpoints, self.routing_of(model).regions
        return tuple(each for each in endpoints if not regions or self.locality_of(each).region in regions)

    def locality_of(self, endpoint: Endpoint) -> Locality:
        """Where a server is; nowhere if that is not known."""
        return self.localities.get(endpoint, NOWHERE)

    def weights(self, model: str) -> dict[int, int]:
        """Weights of a model by version number."""
        return {number: version.weight for number, version in self.versions(model).items()}

    def versions(self, model: str) -> Mapping[int, Version]:
        """Versions of a model by number; a model that is not deployed raises DeploymentError."""
        if model not in self.models:
            raise DeploymentError(f"model {model!r}: expected one of {', '.join(self.models)}")
        return self.models[model]

    def with_weights(self, model: str, weights: Mapping[int, int]) -> "Deployment":
        """The same with other weights for some versions of one model."""
        versions = dict(self.versions(model))
        for number, weight in weights.items():
            if number not in versions:
                known = ", ".join(map(str, versions))
                raise DeploymentError(f"model {model!r}: expected one of versions {known}, given {number}")
            versions[number] = dataclasses.replace(versions[number], weight=weight)
        return dataclasses.replace(self, models={**self.models, model: versions})


def assign_weights(numbers: Iterable[int]) -> dict[int, int]:
    """Weights of versions when nobody chose any: the highest number gets all, as it does without a gateway."""
    ordered = sorted(numbers)
    return {number: 100 if number == ordered[-1] else 0 for number in ordered}


def parse_weights(text: str) -> tuple[str, dict[int, int]]:
    """Read `model:version=weight,version=weight` as typed on a command line."""
    model, colon, pairs = text.rpartition(":")
    if not colon:
        raise DeploymentError(f"weights: expected MODEL:{SPLIT_FORM}, given {text!r}")
    return model, parse_split(pairs)


def parse_split(text: str) -> dict[int, int]:
    """Read `version=weight,version=weight` as typed on a command line."""
    found = [re.fullmatch(r"\s*(\d+)\s*=\s*(\d+)\s*", pair, re.ASCII) for pair in text.split(",")]
    if not all(found):
        raise DeploymentError(f"weights: expected {SPLIT_FORM} in whole numbers from 0, given {text!r}")
    weights = {int(match[1]): int(match[2]) for match in found if match}
    if len(weights) != len(found):
        raise DeploymentError(f"weights: expected each version once, given {text!r}")
    return weights


def cluster_name(model: str, number: int) -> str:
    """The gateway's name for the servers of one version; no model's name holds the at sign."""
    return f"{model}@{number}"


def shadow_cluster_name(model: str) -> str:
    """The gateway's name for the servers that get copies of a model's calls; versions are numbers."""
    return f"{model}@shadow"


def shadow_key(model: str) -> str:
    """Runtime key that holds how many percent of a model's calls are copied, where that is not as declared."""
    return f"{SHADOW_PREFIX}.{model}"


def runtime_prefix(model: str) -> str:
    """Prefix of the runtime keys that hold a model's weights."""
    return f"{WEIGHTS_PREFIX}.{model}"


def runtime_key(model: str, number: int) -> str:
    """Runtime key that holds the weight of one version: Envoy makes it from the prefix and the cluster's name."""
    return f"{runtime_prefix(model)}.{cluster_name(model, number)}"


def _check_model(model: str, versions: Mapping[int, Version]) -> None:
    if not MODEL_NAME.fullmatch(model):
        raise DeploymentError(
            f"model {model!r}: expected a name of at most 128 letters, digits, dots, dashes and underscores "
            "that starts with a letter, a digit or an underscore"
        )
    if not versions:
        raise DeploymentError(f"model {model!r}: expected at least one version, given none")
    for number, version in versions.items():
        _check_version(f"model {model!r} version {number}", number, version)
    if not any(version.weight for version in versions.values()):
        raise DeploymentError(
            f"model {model!r}: expected a weight above 0 for at least one version, given 0 for all",
            ("models", model, "versions"),
        )


def _check_version(name: str, number: int, version: Version) -> None:
    if not _is_int(number) or not 0 < number <= MAX_VERSION:
        raise DeploymentError(f"{name}: expected a version number from 1 to {MAX_VERSION}")
    if not _is_int(version.weight) or not 0 <= version.weight <= MAX_WEIGHT:
        raise DeploymentError(
            f"{name}: expected as weight a whole number from 0 to {MAX_WEIGHT}, given {version.weight!r}"
        )
    if not version.endpoints or len(set(version.endpoints)) != len(version.endpoints):
        given = ", ".join(map(str, version.endpoints)) or "none"
        raise DeploymentError(f"{name}: expected at least one endpoint and each once, given {given}")


def _check_servers(model: str, number: int, servers: tuple[Endpoint, ...], routing: Routing) -> None:
    if not servers:
        raise DeploymentError(
            f"model {model!r} version {number}: expected an endpoint in {' or '.join(routing.regions)}, given none",
            ("models", model, "versions", str(number), "endpoints"),
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
