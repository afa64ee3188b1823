"""Single changes of a model's weights: planned, checked, made in one step, and undone."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.admin import AdminError
from service.deployment import DeploymentError
from service.running_gateway import RunningGateway
from service.traffic import Traffic
from service.traffic_history import DONE, Change, TrafficHistory
from service.traffic_place import TrafficPlace
from service.version_counters import VersionCounters, read_counters
from service.weight_layers import WeightLayers, find_shares


class TrafficError(Exception):
    """A change of traffic that is refused, or that stopped on its way; the text says why, and what is in force."""


@dataclass(frozen=True)
class PlannedChange:
    """What a change would do.

    Attributes
    ----------
    what
        The command, in its own words.
    layers, counters
        Where weights come from now, and how each version fares.
    weights
        All that are in force afterwards.
    overrides
        What the admin is given for it; the file's weights are in force for other versions.
    lasting
        What the file says afterwards; None where it stays as it is.
    unhealthy_too
        Whether versions without a healthy server may gain traffic.
    """

    model: str
    what: str
    layers: WeightLayers
    counters: Mapping[int, VersionCounters]
    weights: Mapping[int, int]
    overrides: Mapping[int, int]
    lasting: Mapping[int, int] | None
    unhealthy_too: bool


class TrafficChanger:
    """Plans and makes changes of the traffic at one place.

    Its methods raise DeploymentError for a model, version or weight that cannot be, AdminError when the gateway cannot
    be reached, TrafficHistoryError, and TrafficError for what is refused; nothing was changed then. Who makes a change
    that was planned holds the lock of the place from before the plan.
    """

    def __init__(self, place: TrafficPlace) -> None:
        self._place = place
        self._traffic = place.open()
        self._history = TrafficHistory(place.state_folder)

    @property
    def traffic(self) -> Traffic:
        """The weights, by what the gateway was rendered from when this began."""
        return self._traffic

    def plan_set(
        self,
        model: str,
        named: Mapping[int, int],
        *,
        is_only: bool = False,
        is_for_good: bool = False,
        unhealthy_too: bool = False,
        what: str = "",
    ) -> PlannedChange:
        """Other weights for some versions; the others keep theirs, or, with `is_only`, get 0.

        `what` names the command in the history, unless it is `set`.
        """
        if is_for_good:
            self.check_lasting()
        layers = self._traffic.read_layers(model)
        others = dict.fromkeys(layers.declared, 0) if is_only else layers.in_force
        # Named and unknown is for with_weights to say, and so is 0 for all.
        weights = self._traffic.deployment.with_weights(model, {**others, **named}).weights(model)
        text = ",".join(f"{number}={weight}" for number, weight in named.items())
        what = (what or f"set {text}{' --only' if is_only else ''}") + (" --for-good" if is_for_good else "")
        overrides, lasting = ({}, weights) if is_for_good else (weights, None)
        return self._plan(model, what, layers, weights, overrides, lasting, unhealthy_too)

    def plan_undo(self, model: str | None, *, unhealthy_too: bool = False) -> PlannedChange:
        """What was before the last change of a model, or of any."""
        change = self._history.find_last(model)
        if change is None:
            of = f"model {model!r}" if model else "any model"
            raise TrafficError(f"nothing to undo: no change of {of} is noted in {self._place.state_folder}")
        if change.is_for_good:
            self.check_lasting()
        layers = self._traffic.read_layers(change.model)
        overrides = {number: weight for number, weight in change.overrides.items() if number in layers.declared}
        lasting = {**layers.effective_lasting, **_keep(change.lasting, layers)} if change.is_for_good else None
        weights = {**(lasting or layers.effective_lasting), **overrides}
        self._traffic.deployment.with_weights(change.model, weights)
        if (layers.effective_overrides, layers.effective_lasting) == (overrides, lasting or layers.effective_lasting):
            raise TrafficError(
                f"nothing to undo: the weights are what they were before {change.what!r} of {change.time}"
            )
        what = f"undo of {change.number}"
        return self._plan(change.model, what, layers, weights, overrides, lasting, unhealthy_too)

    def make(self, planned: PlannedChange) -> None:
        """Put a change in force, at once for all versions, and note it."""
        check_healthy(planned)
        change = self.note(planned)
        try:
            self._traffic.shift(planned.model, planned.weights)
            if planned.lasting is not None:
                self._traffic.save(planned.model, planned.lasting, self._place.state_folder)
            if planned.overrides != planned.weights:
                self._traffic.put_back(planned.model, planned.overrides)
        except (AdminError, DeploymentError, OSError) as error:
            self._history.note_outcome(change.number, f"failed: {error}")
            raise
        self._history.note_outcome(change.number, DONE)

    def note(self, planned: PlannedChange) -> Change:
        """Note a change before it is made, so that it can be undone whatever becomes of this process."""
        layers = planned.layers
        return self._history.add(
            Change(
                model=planned.model,
                what=planned.what,
                old=layers.in_force,
                new=dict(planned.weights),
                overrides=layers.effective_overrides,
                lasting=layers.effective_lasting,
                is_for_good=planned.lasting is not None,
            )
        )

    def check_lasting(self) -> None:
        """Raise TrafficError where the file of weights is out of reach."""
        if not self._place.is_local:
            raise TrafficError(
                "the file of weights that last is on the gateway's machine: change it there, without --operator"
            )

    def _plan(
        self,
        model: str,
        what: str,
        layers: WeightLayers,
        weights: Mapping[int, int],
        overrides: Mapping[int, int],
        lasting: Mapping[int, int] | None,
        unhealthy_too: bool,
    ) -> PlannedChange:
        counters = read_counters(RunningGateway(self._traffic.admin), model, layers.declared)
        return PlannedChange(model, what, layers, counters, weights, overrides, lasting, unhealthy_too)


def check_healthy(planned: PlannedChange) -> None:
    """Raise TrafficError when a version is to get more traffic than now and none of its servers is healthy."""
    if planned.unhealthy_too:
        return
    before, after = find_shares(planned.layers.in_force), find_shares(planned.weights)
    for number, counters in planned.counters.items():
        if after[number] > before[number] and not counters.healthy:
            raise TrafficError(
                f"model {planned.model!r} version {number}: none of its {counters.servers} servers is healthy, "
                "and it is to get more traffic; with --unhealthy-too it gets that nevertheless"
            )


def _keep(weights: Mapping[int, int], layers: WeightLayers) -> dict[int, int]:
    return {number: weight for number, weight in weights.items() if number in layers.declared}
