"""Counts what came of requests by model version, and judges it: failures, shares and accuracies."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.demo.sender import Outcome

# Two-sided, about one false alarm in 1.7 million.
SIGMAS = 5.0
COLUMNS = ("version", "requests", "share", "accuracy", "p50", "p99")


@dataclass(frozen=True)
class Tally:
    """The answered requests of one version; latencies in seconds, as the client saw them."""

    version: int
    requests: int
    share: float
    accuracy: float
    p50_s: float
    p99_s: float


def count_outcomes(outcomes: Sequence[Outcome]) -> list[Tally]:
    """One tally for each version that answered, by number."""
    answered = [outcome for outcome in outcomes if not outcome.failure]
    return [
        _count_version(version, [outcome for outcome in answered if outcome.version == version], len(answered))
        for version in sorted({outcome.version for outcome in answered})
    ]


def _count_version(version: int, outcomes: Sequence[Outcome], total: int) -> Tally:
    p50, p99 = np.percentile([outcome.latency_s for outcome in outcomes], [50, 99])
    correct = sum(outcome.is_correct for outcome in outcomes)
    return Tally(version, len(outcomes), len(outcomes) / total, correct / len(outcomes), float(p50), float(p99))


def format_rows(tallies: Iterable[Tally]) -> list[tuple[str, ...]]:
    """Rows of text under COLUMNS."""
    return [
        (
            str(tally.version),
            f"{tally.requests:,}",
            f"{tally.share:.1%}",
            f"{tally.accuracy:.1%}",
            f"{tally.p50_s * 1000:.2f} ms",
            f"{tally.p99_s * 1000:.2f} ms",
        )
        for tally in tallies
    ]


def find_problems(
    outcomes: Sequence[Outcome], weights: Mapping[int, int], accuracies: Mapping[int, float]
) -> list[str]:
    """What is not as it should be, in words; empty when all is.

    Parameters
    ----------
    weights
        Of the versions while these requests were sent.
    accuracies
        Held-out accuracy of each version as its manifest has it.
    """
    problems = list_failures(outcomes)
    tallies = {tally.version: tally for tally in count_outcomes(outcomes)}
    total = sum(tally.requests for tally in tallies.values())
    problems += [f"version {version} answered, which has no weight" for version in tallies.keys() - weights.keys()]
    for version, weight in weights.items():
        tally = tallies.get(version)
        requests = tally.requests if tally else 0
        if not _is_likely(requests, total, weight / sum(weights.values())):
            problems.append(f"version {version}: {requests} of {total} requests do not fit a weight of {weight}")
        if tally and not _is_likely(tally.accuracy * requests, requests, accuracies[version]):
            problems.append(
                f"version {version}: accuracy {tally.accuracy:.1%} over {requests} requests does not fit "
                f"the manifest's {accuracies[version]:.1%}"
            )
    return problems


def list_failures(outcomes: Sequence[Outcome]) -> list[str]:
    """One line that counts the failures and quotes the first; none when there was none."""
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    return [f"{len(failures)} of {len(outcomes)} requests failed, the first with {failures[0]}"] if failures else []


def _is_likely(hits: float, trials: int, probability: float) -> bool:
    """Whether so many hits lie within the binomial bounds, with half a hit for their being whole numbers."""
    deviation = math.sqrt(trials * probability * (1 - probability))
    return abs(hits - trials * probability) <= SIGMAS * deviation + 0.5
