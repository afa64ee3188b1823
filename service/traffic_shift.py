"""The way of a gradual shift: which weights each of its steps has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from service.deployment import DeploymentError
from service.weight_layers import find_shares

# Shares are counted in hundredths of a percent.
WHOLE = 10_000
PERCENT = 100
MOST_STEPS = 1000
FORM = "VERSION=SHARE,VERSION=SHARE in percent, as in 2=50 or 1=87.5,2=12.5"


@dataclass(frozen=True, kw_only=True)
class ShiftPlan:
    """A gradual shift of a model's traffic.

    Attributes
    ----------
    steps
        Weights of all versions, step by step; the last are those that the shift leads to.
    gaining
        The versions that have a greater share at its end than before it.
    over_s
        How long it takes; every step the same part of it, the last one too, in which the outcome is watched.
    """

    model: str
    steps: tuple[Mapping[int, int], ...]
    gaining: frozenset[int]
    over_s: float


def parse_shares(text: str) -> dict[int, int]:
    """Shares in hundredths of a percent by version, from `version=percent,…`; DeploymentError for anything else."""
    found = [re.fullmatch(r"\s*(\d+)\s*=\s*(\d{1,3})(?:\.(\d{1,2}))?\s*", pair, re.ASCII) for pair in text.split(",")]
    if not all(found):
        raise DeploymentError(f"shares: expected {FORM}, given {text!r}")
    shares = {int(one[1]): int(one[2]) * PERCENT + int((one[3] or "").ljust(2, "0")) for one in found if one}
    if len(shares) != len(found) or sum(shares.values()) > WHOLE:
        raise DeploymentError(f"shares: expected each version once, and 100 percent at most in all, given {text!r}")
    return shares


def plan_shift(
    model: str,
    weights: Mapping[int, int],
    named: Mapping[int, int],
    *,
    steps: int,
    over_s: float,
    in_percent: bool = False,
) -> ShiftPlan:
    """The way from the weights in force to shares in hundredths of a percent.

    Versions that are not named share what is left as they do now. With `in_percent` all weights are whole percents,
    whose sum never changes.

    Raises
    ------
    DeploymentError
        A version that is not there, shares that leave something to nobody, no traffic to shift, or nothing to do.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise DeploymentError(f"steps: expected 1 to {MOST_STEPS}, given {steps}")
    before = find_shares(weights)
    if not any(before.values()):
        raise DeploymentError(f"model {model!r}: its weights give no version any traffic to shift; set them first")
    start = round_shares({number: share * WHOLE for number, share in before.items()})
    end = _find_end(model, start, named)
    if start == end:
        raise DeploymentError(f"model {model!r}: its traffic is shared so already")
    if in_percent and any(share % PERCENT for share in named.values()):
        raise DeploymentError(
            f"model {model!r}: expected whole percents, since its callers or keys stay at their version"
        )
    ladder = [_mix(start, end, step / steps) for step in range(1, steps + 1)]
    if in_percent:
        ladder = [_to_whole_percents(shares) for shares in ladder]
    gaining = frozenset(number for number in end if end[number] > start[number])
    return ShiftPlan(model=model, steps=tuple(map(_to_weights, ladder)), gaining=gaining, over_s=over_s)


def round_shares(shares: Mapping[int, float], whole: int = WHOLE) -> dict[int, int]:
    """Whole numbers whose sum is `whole`: each rounded down, then one more for those that lost most."""
    rounded = {number: int(share) for number, share in shares.items()}
    left = whole - sum(rounded.values())
    most_lost = sorted(shares, key=lambda number: rounded[number] - shares[number])
    return {number: share + (number in most_lost[:left]) for number, share in rounded.items()}


def _find_end(model: str, start: Mapping[int, int], named: Mapping[int, int]) -> dict[int, int]:
    for number in named:
        if number not in start:
            raise DeploymentError(
                f"model {model!r}: expected one of versions {', '.join(map(str, start))}, given {number}"
            )
    left = WHOLE - sum(named.values())
    others = {number: share for number, share in start.items() if number not in named}
    if left and not sum(others.values()):
        raise DeploymentError(
            f"model {model!r}: {left / PERCENT:g} percent are left, and no other version has any traffic now; "
            "name who is to get them"
        )
    rest = {number: left * share / (sum(others.values()) or 1) for number, share in others.items()}
    return round_shares({number: named.get(number, rest.get(number, 0)) for number in start})


def _mix(start: Mapping[int, int], end: Mapping[int, int], part: float) -> dict[int, int]:
    if part == 1:
        return dict(end)
    return round_shares({number: start[number] + (end[number] - start[number]) * part for number in start})


def _to_whole_percents(shares: Mapping[int, int]) -> dict[int, int]:
    percents = round_shares({number: share / PERCENT for number, share in shares.items()}, PERCENT)
    return {number: percent * PERCENT for number, percent in percents.items()}


def _to_weights(shares: Mapping[int, int]) -> dict[int, int]:
    """Percents where all of them are whole, which read better."""
    is_whole = not any(share % PERCENT for share in shares.values())
    return {number: share // PERCENT if is_whole else share for number, share in shares.items()}
