"""What a measurement gives: figures with their repeats, goals they are held to, and the rows that are committed."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number, measured several times; its unit is the end of its name."""

    repeats: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.repeats or not all(math.isfinite(value) for value in self.repeats):
            raise ValueError(f"a figure needs repeats, all of them finite; given {self.repeats}")

    @property
    def median(self) -> float:
        """The middle of the repeats."""
        return statistics.median(self.repeats)

    @property
    def low(self) -> float:
        """The smallest repeat."""
        return min(self.repeats)

    @property
    def high(self) -> float:
        """The largest repeat."""
        return max(self.repeats)

    def as_dict(self) -> dict[str, Any]:
        """The figure as it stands in a row."""
        return {
            "median": _round(self.median),
            "low": _round(self.low),
            "high": _round(self.high),
            "repeats": [_round(value) for value in self.repeats],
        }


@dataclass(frozen=True)
class Goal:
    """A bound for the median of a figure: `at_most` or `at_least`, one of the two."""

    figure: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"goal for {self.figure}: expected either at_most or at_least")

    def is_met(self, figures: Mapping[str, Figure]) -> bool:
        """Whether the figure's median keeps within the bound."""
        median = figures[self.figure].median
        return median <= self.at_most if self.at_most is not None else median >= self.at_least

    @property
    def text(self) -> str:
        """The bound, for people."""
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"

    def as_dict(self, figures: Mapping[str, Figure]) -> dict[str, Any]:
        """The goal as it stands in a row."""
        bound = {"at_most": self.at_most} if self.at_most is not None else {"at_least": self.at_least}
        return {"figure": self.figure, **bound, "is_met": self.is_met(figures)}


@dataclass(frozen=True)
class Row:
    """One measurement under one set of conditions.

    Attributes
    ----------
    conditions
        What was measured: model, load, sizes, counts.
    notes
        What else was found and is no figure, such as a series over time.
    """

    name: str
    figures: Mapping[str, Figure]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    goals: Sequence[Goal] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for goal in self.goals:
            if goal.figure not in self.figures:
                raise ValueError(f"row {self.name}: no figure {goal.figure} for its goal")

    def as_dict(self) -> dict[str, Any]:
        """The row as it is committed, but for where and when."""
        made = {
            "name": self.name,
            "conditions": dict(self.conditions),
            "figures": {name: figure.as_dict() for name, figure in self.figures.items()},
            "goals": [goal.as_dict(self.figures) for goal in self.goals],
        }
        return {**made, "notes": dict(self.notes)} if self.notes else made


def collect_figures(repeats: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """Figures by name, from the numbers of each repeat."""
    return {name: Figure(tuple(repeat[name] for repeat in repeats)) for name in repeats[0]}


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """The ratios of what was measured side by side, pair by pair: noise that lasts longer than a pair cancels."""
    return Figure(tuple(our / their for our, their in zip(ours, theirs, strict=True)))


def write_rows(path: Path, rows: Sequence[Row], origin: Mapping[str, Any]) -> None:
    """Write a measurement's rows, and where they come from, in place of what the file held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**origin, "rows": [row.as_dict() for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def format_rows(rows: Sequence[Row]) -> str:
    """A table for people: figure, median, range, goal."""
    lines = []
    for row in rows:
        shown = ", ".join(f"{name} {value}" for name, value in row.conditions.items())
        lines.append(f"{row.name}  ({shown})" if shown else row.name)
        goals = {goal.figure: goal for goal in row.goals}
        for name, figure in row.figures.items():
            line = f"  {name:<42} {figure.median:>12,.4g}   {figure.low:,.4g} … {figure.high:,.4g}"
            if goal := goals.get(name):
                line += f"   goal {goal.text}: {'met' if goal.is_met(row.figures) else 'MISSED'}"
            lines.append(line)
    return "\n".join(lines)


def _round(value: float) -> float:
    return float(f"{value:.5g}") if abs(value) < 100_000 else round(value)
