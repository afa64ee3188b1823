"""Durations as people write them: 90s, 10m, 1h30m."""

import re

UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
MAX_S = 30 * 24 * 3600.0
_FORM = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?", re.ASCII)


class DurationError(ValueError):
    """A duration that cannot be used; the text says what was expected, and what was given."""


def parse_duration(text: str) -> float:
    """Seconds of hours, minutes and seconds in this order, each at most once; more than 0, and 30 days at most."""
    match = _FORM.fullmatch(text.strip())
    given = {unit: number for unit, number in match.groupdict().items() if number} if match else {}
    if not given:
        raise DurationError(f"expected a duration such as 90s, 10m or 1h30m, given {text!r}")
    seconds = sum(float(number) * UNITS_S[unit] for unit, number in given.items())
    if not 0 < seconds <= MAX_S:
        raise DurationError(f"expected a duration above 0 and of 30 days at most, given {text!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """The same in the largest units that fit, to a tenth of a second."""
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36000)
    minutes, rest = divmod(rest, 600)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest / 10:g}s" if rest else ""]
    return "".join(parts) or "0s"
