"""Which gateway's traffic is meant, how its admin is reached, and where changes are noted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.admin import AdminSocket, OperatorListener
from service.applied_deployment import FILE as APPLIED
from service.deployment_file import DeploymentFileError, read_deployment
from service.gateway import ADMIN_SOCKET
from service.gateway_apply import LOCK
from service.instance import lock_instance
from service.traffic import Traffic


@dataclass(frozen=True)
class TrafficPlace:
    """A gateway and the state folder from which its traffic is changed.

    Attributes
    ----------
    state_folder
        Where the lock and the history of changes are; the gateway's own, unless there is an operator listener.
    operator
        The way to a gateway elsewhere, the file of whose weights is out of reach.
    deployment_file
        What that gateway was rendered from; else it is what the state folder says.
    """

    state_folder: Path
    operator: OperatorListener | None = None
    deployment_file: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether the file of weights is within reach."""
        return self.operator is None

    def open(self) -> Traffic:
        """The traffic by what the gateway is rendered from at this moment; DeploymentFileError when that is unknown."""
        path = self.deployment_file or self.state_folder / APPLIED
        if self.deployment_file is None and not path.exists():
            raise DeploymentFileError(f"{self.state_folder}: no gateway was rendered into this state folder")
        deployment = read_deployment(path)
        return Traffic(deployment, self.operator or AdminSocket(self.state_folder / ADMIN_SOCKET))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other change of this state folder's gateway out; InstanceError when one is under way."""
        with lock_instance(self.state_folder / LOCK):
            yield

    @contextmanager
    def lock_shift(self, model: str) -> Iterator[None]:
        """Keep other gradual shifts of a model out; single changes may come between its steps."""
        with lock_instance(self.state_folder / f"run/shift-{model}.lock"):
            yield
