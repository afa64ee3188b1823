"""bench.rows: medians, ratios, goals, and what is written."""

import json

import pytest

from bench.rows import Figure, Goal, Row, collect_figures, compare, format_rows, write_rows


def test_figure_has_median_and_range_of_its_repeats():
    """In whatever order they came."""
    figure = Figure((3.0, 1.0, 2.0, 10.0))
    assert (figure.median, figure.low, figure.high) == (2.5, 1.0, 10.0)
    assert figure.as_dict() == {"median": 2.5, "low": 1.0, "high": 10.0, "repeats": [3.0, 1.0, 2.0, 10.0]}


@pytest.mark.parametrize("repeats", [(), (1.0, float("nan")), (float("inf"),)])
def test_figure_of_nothing_measured_is_refused(repeats):
    """No row stands for what was not measured."""
    with pytest.raises(ValueError, match="repeats"):
        Figure(repeats)


def test_comparison_is_made_pair_by_pair():
    """A machine that halves its speed for a while changes no ratio."""
    ratio = compare([2.0, 4.0, 2.0], [1.0, 2.0, 1.0])
    assert ratio.repeats == (2.0, 2.0, 2.0)


def test_comparison_of_unequal_counts_is_refused():
    """Every measurement has its partner."""
    with pytest.raises(ValueError, match="shorter"):
        compare([1.0, 2.0], [1.0])


def test_figures_are_collected_by_name():
    """One figure for each name, its repeats in order."""
    figures = collect_figures([{"cpu_us": 1.0, "rate": 5.0}, {"cpu_us": 2.0, "rate": 6.0}])
    assert figures == {"cpu_us": Figure((1.0, 2.0)), "rate": Figure((5.0, 6.0))}


@pytest.mark.parametrize(
    ("bound", "is_met"),
    [({"at_most": 2.0}, True), ({"at_most": 1.9}, False), ({"at_least": 2.0}, True), ({"at_least": 2.1}, False)],
)
def test_goal_is_held_against_the_median(bound, is_met):
    """The bound itself is within it."""
    assert Goal("ratio", **bound).is_met({"ratio": Figure((1.0, 2.0, 9.0))}) is is_met


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1.0, "at_least": 1.0}])
def test_goal_has_one_bound(bounds):
    """At most or at least."""
    with pytest.raises(ValueError, match="either"):
        Goal("ratio", **bounds)


def test_row_with_a_goal_for_no_figure_is_refused():
    """A misspelt goal is not one that is met."""
    with pytest.raises(ValueError, match="no figure rate"):
        Row("engine", {"ratio": Figure((1.0,))}, goals=[Goal("rate", at_most=1)])


def test_rows_are_written_with_their_origin(tmp_path):
    """In place of those of the last run."""
    row = Row("engine", {"ratio": Figure((1.0 / 3,))}, {"model": "tiny"}, [Goal("ratio", at_most=1)], {"series": [1]})
    path = tmp_path / "results" / "engine.json"
    for commit in ("a", "b"):
        write_rows(path, [row], {"commit": commit})
    third = {"median": 0.33333, "low": 0.33333, "high": 0.33333, "repeats": [0.33333]}
    assert json.loads(path.read_text()) == {
        "commit": "b",
        "rows": [
            {
                "name": "engine",
                "conditions": {"model": "tiny"},
                "figures": {"ratio": third},
                "goals": [{"figure": "ratio", "at_most": 1, "is_met": True}],
                "notes": {"series": [1]},
            }
        ],
    }


def test_table_says_which_goals_are_missed():
    """And which are met."""
    figures = {"cpu_us": Figure((2.0,)), "ratio": Figure((3.0,))}
    table = format_rows([Row("grpc", figures, goals=[Goal("cpu_us", at_most=1), Goal("ratio", at_least=3)])])
    assert [line.rpartition("goal ")[2] for line in table.splitlines()[1:]] == ["≤ 1: MISSED", "≥ 3: met"]
