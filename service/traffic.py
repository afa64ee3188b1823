"""Reads and shifts the split of a model's traffic between its versions, in a running gateway."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from service.admin import AdminError
from service.deployment import Deployment, runtime_key
from service.lasting_weights import apply_lasting_weights, save_weights

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

    def read_weights(self, model: str) -> dict[int, int]:
        """Weights in force by version number; raises DeploymentError for an unknown model, AdminError."""
        declared = self._deployment.weights(model)
        entries = self._read_runtime()["entries"]
        return {
            number: int(entries.get(runtime_key(model, number), {}).get("final_value", weight))
            for number, weight in declared.items()
        }

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
        wanted = self._deployment.with_weights(model, self.read_weights(model)).with_weights(model, weights)
        # All of them in one call: nothing is in force in between.
        self._modify({runtime_key(model, number): str(weight) for number, weight in wanted.weights(model).items()})
        return wanted.weights(model)

    def shift_for_good(self, model: str, weights: Mapping[int, int], state_folder: Path) -> dict[int, int]:
        """Change weights as `shift` does, and in the file that Envoy reads when it starts again.

        The file is in force before the admin's values, which lie above it, are cleared.
        """
        wanted = self.shift(model, weights)
        save_weights(apply_lasting_weights(self._deployment, state_folder).with_weights(model, wanted), state_folder)
        self._await_file(model, wanted)
        self._modify({runtime_key(model, number): "" for number in wanted})
        return wanted

    def _read_runtime(self) -> dict[str, Any]:
        return json.loads(self._admin.request("GET", "/runtime?format=json"))

    def _modify(self, values: Mapping[str, str]) -> None:
        self._admin.request("POST", f"/runtime_modify?{urlencode(values)}")

    def _await_file(self, model: str, weights: Mapping[int, int]) -> None:
        deadline = time.monotonic() + FILE_TIMEOUT_S
        while self._read_file_layer(model, weights) != {number: str(weight) for number, weight in weights.items()}:
            if time.monotonic() > deadline:
                raise AdminError(
                    f"model {model!r}: the gateway has not taken the file of weights; the shift is in force"
                )
            time.sleep(POLL_S)

    def _read_file_layer(self, model: str, numbers: Iterable[int]) -> dict[int, str]:
        runtime = self._read_runtime()
        layer, nothing = runtime["layers"].index(FILE_LAYER), [""] * len(runtime["layers"])
        entries = {number: runtime["entries"].get(runtime_key(model, number), {}) for number in numbers}
        return {number: entry.get("layer_values", nothing)[layer] for number, entry in entries.items()}
