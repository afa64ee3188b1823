"""Prometheus's text format, version 0.0.4: families of samples to text.

Ours, since prometheus_client cannot write a counter whose name does not end in _total, as none of Triton's does, and
takes several times as long for thousands of models.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


@dataclass(frozen=True)
class Family:
    """One metric: its name, kind ("counter", "gauge" or "histogram"), meaning with its unit, and samples."""

    name: str
    kind: str
    meaning: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, labels: str = "") -> None:
        """Add a sample; labels as format_labels gives them."""
        sample = f"{self.name}{{{labels}}}" if labels else self.name
        self.lines.append(f"{sample} {format_number(value)}")

    def add_histogram(self, bounds: Sequence[str], counts: Sequence[int], total: float, labels: str) -> None:
        """Add a histogram: how many fell into each bucket, the last of which has no bound, and the sum of all."""
        seen = 0
        for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
            seen += count
            self.lines.append(f'{self.name}_bucket{{{labels},le="{bound}"}} {seen}')
        self.lines.append(f"{self.name}_sum{{{labels}}} {format_number(total)}")
        self.lines.append(f"{self.name}_count{{{labels}}} {seen}")


def format_labels(labels: Mapping[str, str]) -> str:
    """Labels as they stand between the braces."""
    return ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in labels.items())


def format_number(value: float) -> str:
    """A number as the format has it; whole ones to the last digit."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def write_text(families: Iterable[Family]) -> bytes:
    """The whole text; a family without samples is left out."""
    lines: list[str] = []
    for family in families:
        if family.lines:
            lines.append(f"# HELP {family.name} {family.meaning.translate(HELP_ESCAPES)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines.extend(family.lines)
    return ("\n".join(lines) + "\n").encode()
