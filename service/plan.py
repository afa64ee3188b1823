"""What a deployment on this machine runs, and the model of it that the gateway is rendered from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.applied_deployment import keep_lasting_weights
from service.config_text import ModelConfigError
from service.deployment import DEFAULT_MAX_MESSAGE_BYTES, Deployment, Endpoint, Version, assign_weights
from service.fleet_member import FleetMember
from service.lasting_weights import apply_lasting_weights
from service.model_folders import ModelFolder, ModelFolderError, list_models
from service.model_plan import plan_model
from service.model_routing import Routing
from service.sequence_models import find_sequence_models

GATEWAY = Endpoint("127.0.0.1", 8443)
OPERATOR = Endpoint("127.0.0.1", 9443)
SERVICE = Endpoint("127.0.0.1", 8001)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a deployment on this machine runs, and where.

    Attributes
    ----------
    gateway, operator, service
        Where the gateway listens for clients and for operators, and the service for the gateway.
    weights
        By model and version number; the highest version gets all of a model that is not in here.
    drain_timeout_s
        How long requests may take to finish, at the gateway and then once more at the service.
    envoy
        Envoy's executable; found when None.
    declared
        The whole deployment, where an operator declares it: then services are others' to run, and those fields above
        that it says itself are of no meaning.
    member
        Likewise where a control plane says what the gateway goes by.
    """

    state_folder: Path
    model_repository: Path = Path()
    gateway: Endpoint = GATEWAY
    operator: Endpoint = OPERATOR
    service: Endpoint = SERVICE
    weights: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    drain_timeout_s: float = 30.0
    gateway_threads: int = 1
    envoy: Path | None = None
    declared: Deployment | None = None
    member: FleetMember | None = None

    @property
    def certificates(self) -> Path:
        """Folder of the certificates."""
        return self.state_folder / "certs"

    def log_file(self, name: str) -> Path:
        """Where the child of that name logs."""
        return self.state_folder / "logs" / f"{name}.log"


def list_served(folder: ModelFolder) -> tuple[int, ...]:
    """The versions of a model that its policy chooses among those that are there; all, where that cannot be told."""
    try:
        return tuple(version for version in plan_model(folder).versions if version in folder.versions)
    except (ModelConfigError, ModelFolderError):
        # The service says what is wrong.
        return tuple(folder.versions)


def derive_deployment(plan: Plan) -> Deployment:
    """The deployment that is declared, else that of what the model repository holds, with the plan's weights.

    Weights that an operator set for good stay: of the repository's models without any in the plan, and of those that
    are declared as they were when that was last put in place.

    Raises
    ------
    ModelFolderError, DeploymentError
        The repository cannot be read or holds no model, or the plan weighs what is not there.
    """
    if plan.declared is not None:
        return keep_lasting_weights(plan.declared, plan.state_folder)
    folders = list_models(plan.model_repository)
    models = {
        folder.name: {number: Version(weight, (plan.service,)) for number, weight in assign_weights(served).items()}
        for folder in folders
        if (served := list_served(folder))
    }
    deployment = Deployment(
        models=models,
        gateway=plan.gateway,
        operator=plan.operator,
        certificates=plan.certificates,
        max_message_bytes=plan.max_message_bytes,
        routing={name: Routing(sequences=True) for name in find_sequence_models(folders) if name in models},
    )
    deployment = apply_lasting_weights(deployment, plan.state_folder)
    for model, weights in plan.weights.items():
        # Who names some versions leaves nothing for the others.
        deployment = deployment.with_weights(model, dict.fromkeys(deployment.versions(model), 0) | dict(weights))
    return deployment
