"""What the demonstration counts, and what it takes for wrong."""

import pytest

from service.demo.sender import Outcome
from service.demo.tally import count_outcomes, find_problems, format_rows

ACCURACIES = {1: 0.9, 2: 0.95}


def make_outcomes(version, correct, wrong=0, latency_s=0.002):
    """Answers of one version."""
    return [Outcome(0.0, latency_s, version, is_correct) for is_correct in [True] * correct + [False] * wrong]


def test_count_outcomes_gives_share_accuracy_and_latency_by_version():
    """Failures count for no version."""
    outcomes = make_outcomes(2, 95, 5) + make_outcomes(1, 270, 30, latency_s=0.004) + [Outcome(0.0, 9.0, failure="x")]
    assert format_rows(count_outcomes(outcomes)) == [
        ("1", "300", "75.0%", "90.0%", "4.00 ms", "4.00 ms"),
        ("2", "100", "25.0%", "95.0%", "2.00 ms", "2.00 ms"),
    ]


def test_find_problems_of_what_is_as_it_should_be_is_none():
    """The split and the accuracies within their bounds."""
    outcomes = make_outcomes(1, 812, 88) + make_outcomes(2, 96, 4)
    assert find_problems(outcomes, {1: 90, 2: 10}, ACCURACIES) == []


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (make_outcomes(1, 450, 50) + make_outcomes(2, 475, 25), "version 1: 500 of 1000 requests do not fit"),
        (make_outcomes(1, 900, 100), "version 2: 0 of 1000 requests do not fit a weight of 10"),
        (make_outcomes(1, 600, 300) + make_outcomes(2, 95, 5), "version 1: accuracy 66.7% over 900 requests"),
        (make_outcomes(1, 810, 90) + make_outcomes(2, 95, 5) + make_outcomes(3, 1), "version 3 answered"),
        (
            make_outcomes(1, 810, 90) + make_outcomes(2, 95, 5) + [Outcome(0.0, 1.0, failure="UNAVAILABLE: gone")],
            "1 of 1001 requests failed, the first with UNAVAILABLE: gone",
        ),
    ],
)
def test_find_problems_names_what_is_not(outcomes, message):
    """Shares, accuracy, a version without weight, and any failure at all."""
    assert any(message in problem for problem in find_problems(outcomes, {1: 90, 2: 10}, ACCURACIES))
