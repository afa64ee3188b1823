"""Reads and shifts the split of a model's traffic between its versions, in a running gateway."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from service.admin import AdminError
from service.deployment import Deployment, runtime_key
from service.lasting_weights import apply_lasting_weights, save_weights
from service.weight_layers import WeightLayers

FILE_LAYER = "weights"
FILE_TIMEOUT_S = 5.0
POLL_S = 0.02


class Admin(Protocol):
    """A way to Envoy's admin: AdminSocket or OperatorListener."""

    def request(self, method: str, target: str) -> str:
        """The answer's text; raises AdminError."""


class Traffic:
    """The weights of a deployment's versions as the gateway applies them.

    Parameters
    ----------
    deployment
        What the gateway was rendered from: it says which models and versions there are.
    admin
        The way to Envoy's admin.
    """

    def __init__(self, deployment: Deployment, admin: Admin) -> None:
        self._deployment = deployment
        self._admin = admin

    @property
    def deployment(self) -> Deployment:
        """What the gateway was rendered from."""
        return self._deployment

    @property
    def admin(self) -> Admin:
        """The way to Envoy's admin."""
        return self._admin

    def read_weights(self, model: str) -> dict[int, int]:
        """Weights in force by version number; raises DeploymentError for an unknown model, AdminError."""
        return self.read_layers(model).in_force

    def read_layers(self, model: str) -> WeightLayers:
        """What stands in each place that weights come from; raises DeploymentError for an unknown model, AdminError."""
        declared = self._deployment.weights(model)
        runtime = self._read_runtime()
        file_place = runtime["layers"].index(FILE_LAYER)
        lasting, overrides = {}, {}
        for number in declared:
            values = runtime["entries"].get(runtime_key(model, number), {}).get("layer_values", [])
            for place, text in enumerate(values):
                if text:
                    (lasting if place == file_place else overrides)[number] = text
        return WeightLayers(declared, lasting, overrides)

    def shift(self, model: str, weights: Mapping[int, int]) -> dict[int, int]:
        """Change weights at once, until Envoy ends; versions that are not named keep theirs.

        Returns
        -------
        dict of int to int
            All of the model's weights that are then in force.

        Raises
        ------
        DeploymentError
            A model or version that is not deployed, a weight that is none, or none above 0; nothing was changed.
            Envoy would answer OK and ignore it, or send the traffic nowhere.
        AdminError
            The admin cannot be reached or refuses.
        """
        wanted = self._deployment.with_weights(model, {**self.read_weights(model), **weights})
        # All of them in one call: nothing is in force in between.
        self._modify({runtime_key(model, number): str(weight) for number, weight in wanted.weights(model).items()})
        return wanted.weights(model)

    def shift_for_good(self, model: str, weights: Mapping[int, int], state_folder: Path) -> dict[int, int]:
        """Change weights as `shift` does, and in the file that Envoy reads when it starts again.

        The file is in force before the admin's values, which lie above it, are cleared.
        """
        wanted = self.shift(model, weights)
        self.save(model, wanted, state_folder)
        self.put_back(model, {})
        return wanted

    def save(self, model: str, weights: Mapping[int, int], state_folder: Path) -> None:
        """Write all weights of a model to the file, and return when the gateway has it; the admin's lie above it."""
        save_weights(apply_lasting_weights(self._deployment, state_folder).with_weights(model, weights), state_folder)
        self._await_file(model, weights)

    def put_back(self, model: str, overrides: Mapping[int, int]) -> None:
        """Give the admin exactly these weights, until Envoy ends: for other versions the file's are in force again.

        DeploymentError, and nothing was changed, when that would leave the model's traffic to no version.
        """
        layers = self.read_layers(model)
        self._deployment.with_weights(model, layers.effective_lasting | dict(overrides))
        self._modify({runtime_key(model, number): str(overrides.get(number, "")) for number in layers.declared})

    def _read_runtime(self) -> dict[str, Any]:
        return json.loads(self._admin.request("GET", "/runtime?format=json"))

    def _modify(self, values: Mapping[str, str]) -> None:
        self._admin.request("POST", f"/runtime_modify?{urlencode(values)}")

    def _await_file(self, model: str, weights: Mapping[int, int]) -> None:
        deadline = time.monotonic() + FILE_TIMEOUT_S
        while self.read_layers(model).lasting != {number: str(weight) for number, weight in weights.items()}:
            if time.monotonic() > deadline:
                raise AdminError(
                    f"model {model!r}: the gateway has not taken the file of weights; the shift is in force"
                )
            time.sleep(POLL_S)
