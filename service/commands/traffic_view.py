"""How `sluice traffic` shows weights, changes of them, and shifts under way."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from service.commands.certs import format_table
from service.duration import format_duration
from service.shadow_traffic import ShadowState
from service.shift_run import Progress
from service.traffic_change import PlannedChange
from service.traffic_history import Change
from service.version_counters import VersionCounters
from service.weight_layers import WeightLayers, find_shares, read_weight

COLUMNS = ("model", "version", "declared", "lasting", "override", "in force", "share", "healthy")
CHANGE_COLUMNS = ("version", "weight", "share", "healthy")
PROGRESS_COLUMNS = ("version", "share wanted", "measured", "calls", "errors", "sent again", "p50", "p99", "healthy")
HISTORY_COLUMNS = ("number", "time", "user", "model", "what", "weights before", "weights after", "outcome")


@dataclass(frozen=True)
class ModelTraffic:
    """One model's weights by place, and how its versions fare."""

    model: str
    layers: WeightLayers
    counters: Mapping[int, VersionCounters]
    shadow: ShadowState | None = None


def describe_traffic(traffic: list[ModelTraffic]) -> list[dict[str, object]]:
    """The JSON of `show`: a row for each version; what is in no layer is null."""
    return [
        {
            "model": one.model,
            "version": number,
            "declared": declared,
            "lasting": one.layers.lasting.get(number),
            "override": one.layers.overrides.get(number),
            "in_force": one.layers.in_force[number],
            "share_percent": round(100 * find_shares(one.layers.in_force)[number], 2),
            "healthy": one.counters[number].healthy,
            "servers": one.counters[number].servers,
            "shadow": asdict(one.shadow) if one.shadow and one.shadow.version == number else None,
        }
        for one in traffic
        for number, declared in one.layers.declared.items()
    ]


def format_traffic(traffic: list[ModelTraffic]) -> str:
    """A table of the versions, and below it what is out of the ordinary."""
    rows = [
        (
            str(row["model"]),
            str(row["version"]),
            str(row["declared"]),
            *("-" if row[place] is None else str(row[place]) for place in ("lasting", "override")),
            str(row["in_force"]),
            f"{row['share_percent']:.1f} %",
            f"{row['healthy']}/{row['servers']}",
        )
        for row in describe_traffic(traffic)
    ]
    notes = [note for one in traffic for note in _find_notes(one)]
    return "\n".join([*format_table([COLUMNS, *rows]), *([""] if notes else []), *notes])


def _find_notes(one: ModelTraffic) -> list[str]:
    notes = [describe_shadow(one.model, one.shadow)] if one.shadow else []
    if one.layers.overrides:
        versions = ", ".join(map(str, sorted(one.layers.overrides)))
        notes.append(f"{one.model}: versions with an override ({versions}): set by an operator until Envoy ends")
    for number, declared in one.layers.declared.items():
        text = {**one.layers.lasting, **one.layers.overrides}.get(number, "0")
        if read_weight(text, -1) < 0:
            notes.append(f"{one.model} {number}: {text!r} is no weight; Envoy goes by the declared {declared} instead")
    if not any(find_shares(one.layers.in_force).values()):
        notes.append(f"{one.model}: these weights give no version any traffic; calls without a version fail")
    return notes


def describe_shadow(model: str, shadow: ShadowState) -> str:
    """What a model's shadow gets, and what became of it, in one line."""
    declared = "" if shadow.percent == shadow.declared_percent else f", {shadow.declared_percent} % declared"
    return (
        f"{model}: version {shadow.version} gets copies of {shadow.percent} % of the calls{declared}: "
        f"{shadow.sent} sent, {shadow.answered} answered, {shadow.failed} failed, {shadow.dropped} dropped, "
        f"{shadow.healthy}/{shadow.servers} healthy"
    )


def format_change(planned: PlannedChange) -> str:
    """What a change does to each version."""
    old, new = planned.layers.in_force, planned.weights
    old_shares, new_shares = find_shares(old), find_shares(new)
    rows = [
        (
            str(number),
            f"{old[number]} → {new[number]}",
            f"{old_shares[number]:.1%} → {new_shares[number]:.1%}",
            f"{counters.healthy}/{counters.servers}",
        )
        for number, counters in planned.counters.items()
    ]
    lasts = "for good" if planned.lasting is not None else "until Envoy ends"
    return "\n".join([f"{planned.model}: {planned.what}, {lasts}", "", *format_table([CHANGE_COLUMNS, *rows])])


def format_progress(progress: Progress) -> str:
    """A table of the versions since the step began, under a line that says which step it is."""
    rows = [(str(number), *_describe_version(progress, number)) for number in progress.counters]
    return "\n".join([_format_head(progress), "", *format_table([PROGRESS_COLUMNS, *rows])])


def format_step(progress: Progress) -> str:
    """The same in one line."""
    versions = (
        f"version {number}: {wanted} wanted, {measured} of {calls} calls, {errors} errors, {again} sent again, "
        f"p50 {p50}, p99 {p99}, {healthy} healthy"
        for number in progress.counters
        for wanted, measured, calls, errors, again, p50, p99, healthy in [_describe_version(progress, number)]
    )
    return f"{_format_head(progress)}  {';  '.join(versions)}"


def _format_head(progress: Progress) -> str:
    plan = progress.plan
    passed, over = format_duration(round(progress.elapsed_s)), format_duration(plan.over_s)
    return f"{plan.model}: step {progress.step} of {len(plan.steps)}, {passed} of {over}"


def _describe_version(progress: Progress, number: int) -> tuple[str, ...]:
    """Texts in the order of PROGRESS_COLUMNS, behind the first."""
    one = progress.counters[number]
    calls = sum(each.calls for each in progress.counters.values())
    return (
        f"{find_shares(progress.weights)[number]:.1%}",
        f"{one.calls / calls:.1%}" if calls else "-",
        str(one.calls),
        str(one.failed),
        str(one.sent_again),
        *(_format_ms(one.find_percentile_ms(part)) for part in (0.5, 0.99)),
        f"{one.healthy}/{one.servers}",
    )


def _format_ms(value: float | None) -> str:
    """Envoy counts in whole milliseconds."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 1 else "<1 ms"


def format_history(changes: list[Change]) -> str:
    """A table of changes, the last one last."""
    if not changes:
        return "no changes"
    rows = [
        (
            str(one.number),
            one.time,
            one.user,
            one.model,
            one.what,
            _format_weights(one.old),
            _format_weights(one.new),
            one.outcome,
        )
        for one in changes
    ]
    return "\n".join(format_table([HISTORY_COLUMNS, *rows]))


def _format_weights(weights: Mapping[int, int]) -> str:
    return ",".join(f"{number}={weight}" for number, weight in weights.items())
