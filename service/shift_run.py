"""A gradual shift under way: step by step, watched, and taken back when a version that gains traffic fails."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from service.admin import AdminError
from service.deployment import DeploymentError
from service.instance import InstanceError
from service.running_gateway import RunningGateway
from service.traffic import Traffic
from service.traffic_change import PlannedChange, TrafficChanger, TrafficError
from service.traffic_history import DONE, TrafficHistory
from service.traffic_place import TrafficPlace
from service.traffic_shift import ShiftPlan
from service.version_counters import VersionCounters, read_counters

LOOK_S = 1.0
# How long a step waits for another change of the same gateway to end.
LOCK_TIMEOUT_S = 60.0
LOCK_POLL_S = 0.1
# Before a step is over, a share of errors counts from so many calls on: of fewer, one makes too much.
LEAST_CALLS = 20


@dataclass(frozen=True)
class Progress:
    """How far a shift is, and how the versions have fared since its last step.

    Attributes
    ----------
    step
        From 1 on.
    is_step_over
        Whether the next step follows at once.
    """

    plan: ShiftPlan
    step: int
    elapsed_s: float
    counters: Mapping[int, VersionCounters]
    is_step_over: bool

    @property
    def weights(self) -> Mapping[int, int]:
        """The weights of the step."""
        return self.plan.steps[self.step - 1]


class VersionFailureError(Exception):
    """A version that gains traffic does not bear it; the text names it and what was seen."""


class ShiftRun:
    """Carries out a gradual shift.

    It stops, and leaves what it finds, when anybody else changes the model's weights meanwhile. Only versions that gain
    traffic are judged: that the others fail is no reason to lead traffic back to them.

    Parameters
    ----------
    planned
        The whole shift as a single change: what is in force before it, and afterwards. Where that is for versions
        without healthy servers too, the lack of them is no failure.
    max_errors
        Above this part of its calls in a step, from 0 to 1, a gaining version has failed; None is no limit.
    tell
        Told how it goes, about every second and at the end of each step.
    """

    def __init__(
        self,
        place: TrafficPlace,
        plan: ShiftPlan,
        planned: PlannedChange,
        *,
        max_errors: float | None = None,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._place = place
        self._plan = plan
        self._planned = planned
        self._max_errors = max_errors
        self._tell = tell
        self._history = TrafficHistory(place.state_folder)
        self._number = 0
        self._expected = planned.layers
        self._step = 0

    def run(self) -> None:
        """Go all steps and return at the end of the last.

        Raises
        ------
        TrafficError
            A version failed and what was before is in force again, or somebody else changed the weights.
        AdminError, DeploymentError, InstanceError
            The gateway or its deployment is out of reach; the weights stay as they were set last.
        KeyboardInterrupt
            Passed on; the weights stay as they are.
        """
        try:
            self._go()
        except (TrafficError, AdminError, DeploymentError, InstanceError) as error:
            self._end(f"stopped at step {self._step}: {error}")
            raise
        except KeyboardInterrupt:
            self._end(f"stopped by hand at step {self._step}")
            raise
        self._end(DONE)

    def _go(self) -> None:
        try:
            self._go_steps()
        except VersionFailureError as failure:
            try:
                text = self._go_back(failure)
            except (TrafficError, AdminError, DeploymentError, InstanceError) as error:
                text = f"{failure}; not taken back: {error}"
            raise TrafficError(text) from None
        if self._planned.lasting is not None:
            with self._change() as traffic:
                traffic.save(self._plan.model, self._planned.lasting, self._place.state_folder)
                traffic.put_back(self._plan.model, {})

    def _go_steps(self) -> None:
        start = time.monotonic()
        for weights in self._plan.steps:
            self._step += 1
            self._enter(weights)
            self._watch(start, start + self._plan.over_s * self._step / len(self._plan.steps))

    def _enter(self, weights: Mapping[int, int]) -> None:
        with self._change() as traffic:
            self._judge_health(self._count(traffic))
            if not self._number:
                self._number = TrafficChanger(self._place).note(self._planned).number
            traffic.shift(self._plan.model, weights)
            self._expected = traffic.read_layers(self._plan.model)

    def _watch(self, start: float, until: float) -> None:
        traffic = self._place.open()
        before = self._count(traffic)
        is_over = False
        while not is_over:
            time.sleep(max(0.0, min(LOOK_S, until - time.monotonic())))
            is_over = time.monotonic() >= until
            self._check_unchanged(traffic)
            counters = {number: one.since(before[number]) for number, one in self._count(traffic).items()}
            self._tell(Progress(self._plan, self._step, time.monotonic() - start, counters, is_over))
            self._judge_health(counters)
            self._judge_errors(counters, 1 if is_over else LEAST_CALLS)

    def _judge_health(self, counters: Mapping[int, VersionCounters]) -> None:
        for number in sorted(self._plan.gaining):
            if not counters[number].healthy and not self._planned.unhealthy_too:
                raise VersionFailureError(
                    f"version {number}: none of its {counters[number].servers} servers is healthy"
                )

    def _judge_errors(self, counters: Mapping[int, VersionCounters], least_calls: int) -> None:
        for number in sorted(self._plan.gaining):
            one = counters[number]
            if self._max_errors is not None and one.calls >= least_calls and one.error_share > self._max_errors:
                raise VersionFailureError(
                    f"version {number}: {one.error_share:.1%} of {one.calls} calls failed in step {self._step}, "
                    f"above the {self._max_errors:.1%} allowed"
                )

    def _go_back(self, failure: VersionFailureError) -> str:
        """Put what was before in force again, and say whether that was done."""
        if not self._number:
            return f"{failure}; nothing was changed"
        with self._change() as traffic:
            counters, old = self._count(traffic), self._planned.layers
            if not any(weight and counters[number].healthy for number, weight in old.in_force.items()):
                return f"{failure}; stopped here, for no version that had traffic before is healthy either"
            traffic.put_back(self._plan.model, old.effective_overrides)
        return f"{failure}; went back to what was before"

    def _end(self, outcome: str) -> None:
        if self._number:
            with self._await_lock():
                self._history.note_outcome(self._number, outcome)

    @contextmanager
    def _change(self) -> Iterator[Traffic]:
        """The traffic by what is deployed now, for a change that is this shift's to make."""
        with self._await_lock():
            traffic = self._place.open()
            self._check_unchanged(traffic)
            yield traffic

    @contextmanager
    def _await_lock(self) -> Iterator[None]:
        with ExitStack() as stack:
            until = time.monotonic() + LOCK_TIMEOUT_S
            while not self._try_lock(stack, is_last_try=time.monotonic() > until):
                time.sleep(LOCK_POLL_S)
            yield

    def _try_lock(self, stack: ExitStack, *, is_last_try: bool) -> bool:
        try:
            stack.enter_context(self._place.lock())
        except InstanceError:
            if is_last_try:
                raise
            return False
        return True

    def _check_unchanged(self, traffic: Traffic) -> None:
        found = traffic.read_layers(self._plan.model)
        if found != self._expected:
            raise TrafficError(
                f"model {self._plan.model!r}: somebody else changed its weights, or Envoy began anew: expected "
                f"{_format(self._expected.in_force)}, found {_format(found.in_force)}; left as found"
            )

    def _count(self, traffic: Traffic) -> dict[int, VersionCounters]:
        return read_counters(RunningGateway(traffic.admin), self._plan.model, self._expected.declared)


def _format(weights: Mapping[int, int]) -> str:
    return ", ".join(f"{number}={weight}" for number, weight in weights.items())
