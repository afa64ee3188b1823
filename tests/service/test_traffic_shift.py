"""Durations, values and ladders of a gradual shift, and the history of changes, without a gateway."""

import pytest

from service.deployment import DeploymentError
from service.duration import DurationError, format_duration, parse_duration
from service.traffic_history import FILE, MOST_CHANGES, Change, TrafficHistory, TrafficHistoryError
from service.traffic_shift import parse_shares, plan_shift, round_shares
from service.version_counters import VersionCounters
from service.weight_layers import find_shares, read_weight


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [
        ("90s", 90, "1m30s"),
        ("10m", 600, "10m"),
        ("1h30m", 5400, "1h30m"),
        ("0.5s", 0.5, "0.5s"),
        ("2h5s", 7205, "2h5s"),
    ],
)
def test_parse_duration_reads_what_people_write(text, seconds, again):
    """Hours, minutes and seconds, and back."""
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == again


@pytest.mark.parametrize("text", ["", "10", "m", "-5s", "0s", "5m1h", "1.5h", "10m10m", "31m1d", "721h", "ten"])
def test_parse_duration_of_anything_else_says_what_was_given(text):
    """No number without a unit, nothing that is no time at all, nothing endless."""
    with pytest.raises(DurationError, match=f"given '{text}'"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "shares"),
    [("2=100", {2: 10000}), ("1=87.5,2=12.5", {1: 8750, 2: 1250}), (" 1 = 0 , 2=0.05", {1: 0, 2: 5})],
)
def test_parse_shares_reads_hundredths_of_percents(text, shares):
    """Two digits behind the point at most."""
    assert parse_shares(text) == shares


@pytest.mark.parametrize("text", ["", "2", "2=", "2=101", "1=60,2=41", "2=10,2=20", "2=-1", "2=1.234", "a=1"])
def test_parse_shares_of_anything_else_is_refused(text):
    """More than all, twice the same version, and what is no number."""
    with pytest.raises(DeploymentError, match="given"):
        parse_shares(text)


@pytest.mark.parametrize(
    ("weights", "named", "steps", "ladder"),
    [
        ({1: 9, 2: 1}, {2: 10000}, 3, [{1: 60, 2: 40}, {1: 30, 2: 70}, {1: 0, 2: 100}]),
        ({1: 100, 2: 0}, {2: 2500}, 2, [{1: 8750, 2: 1250}, {1: 75, 2: 25}]),
        ({1: 30, 2: 10, 3: 0}, {3: 6000}, 1, [{1: 30, 2: 10, 3: 60}]),
        ({1: 1, 2: 1, 3: 1}, {1: 0}, 1, [{1: 0, 2: 50, 3: 50}]),
    ],
)
def test_plan_shift_goes_in_equal_steps_and_keeps_the_rest_in_proportion(weights, named, steps, ladder):
    """Every step's weights add up to 100 percent, and the last is what was asked for."""
    plan = plan_shift("digits", weights, named, steps=steps, over_s=1.0)
    assert list(plan.steps) == ladder


def test_plan_shift_knows_who_gains():
    """Only these are judged."""
    plan = plan_shift("digits", {1: 50, 2: 50, 3: 0}, {3: 4000}, steps=4, over_s=1.0)
    assert plan.gaining == {3}


@pytest.mark.parametrize(
    ("weights", "named", "steps", "words"),
    [
        ({1: 1, 2: 1}, {3: 10000}, 1, "expected one of versions 1, 2, given 3"),
        ({1: 0, 2: 1}, {2: 5000}, 1, "50 percent are left"),
        ({1: 0, 2: 0}, {2: 10000}, 1, "no version any traffic"),
        ({1: 1, 2: 1}, {2: 5000}, 1, "shared so already"),
        ({1: 1, 2: 1}, {2: 10000}, 0, "expected 1 to 1000, given 0"),
        ({1: 1, 2: 1}, {2: 10000}, 1001, "given 1001"),
    ],
)
def test_plan_shift_to_what_cannot_be_is_refused(weights, named, steps, words):
    """Each with the reason."""
    with pytest.raises(DeploymentError, match=words):
        plan_shift("digits", weights, named, steps=steps, over_s=1.0)


def test_round_shares_loses_nothing():
    """A third each leaves one hundredth, and somebody gets it."""
    assert sorted(round_shares(dict.fromkeys((1, 2, 3), 10000 / 3)).values()) == [3333, 3333, 3334]


@pytest.mark.parametrize(("weights", "shares"), [({1: 1, 2: 3}, {1: 0.25, 2: 0.75}), ({1: 0, 2: 0}, {1: 0, 2: 0})])
def test_find_shares_of_weights(weights, shares):
    """Weights are relative; none select nobody."""
    assert find_shares(weights) == shares
    assert find_shares({1: 2**32, 2: 1}) == {1: 0, 2: 0}


@pytest.mark.parametrize("text", ["lots", "-5", "", "NaN", "inf", "1e400", "1_000", "50%", "0o10", str(2**70)])
def test_read_weight_of_no_number_is_the_other(text):
    """As Envoy does."""
    assert read_weight(text, 7) == 7


def test_counters_know_errors_and_percentiles_since():
    """Attempts that were sent again count as errors of the version; nothing is known of no calls."""
    before = VersionCounters(100, 5, 0, 1, 1, {(0, 0): 100})
    now = VersionCounters(110, 6, 1, 1, 2, {(0, 0): 105, (1, 1.1): 4, (20, 21): 1}).since(before)
    assert (now.calls, now.error_share, now.servers) == (10, 0.2, 2)
    assert now.find_percentile_ms(0.5) == 0
    assert now.find_percentile_ms(0.9) == 1.05
    assert now.find_percentile_ms(0.99) == 20.5
    assert VersionCounters().find_percentile_ms(0.5) is None
    assert VersionCounters().error_share == 0


def make_change(what):
    """A change of digits."""
    return Change(model="digits", what=what, old={1: 1}, new={1: 2}, overrides={}, lasting={1: 1}, is_for_good=False)


def test_history_is_bounded_and_finds_the_last(tmp_path):
    """The oldest are forgotten; numbers go on."""
    history = TrafficHistory(tmp_path)
    assert history.read() == []
    for number in range(MOST_CHANGES + 2):
        last = history.add(make_change(f"set {number}"))
    changes = history.read()
    assert [changes[0].number, changes[-1].number, len(changes)] == [3, MOST_CHANGES + 2, MOST_CHANGES]
    assert history.find_last("digits") == history.find_last(None) == last
    assert history.find_last("letters") is None
    history.note_outcome(last.number, "done")
    assert history.find_last(None).outcome == "done"


@pytest.mark.parametrize("content", ["{", "[3]", '[{"model": 1}]', "3"])
def test_history_that_is_broken_is_named(tmp_path, content):
    """What to do about it is said."""
    (tmp_path / FILE).write_text(content)
    with pytest.raises(TrafficHistoryError, match=FILE):
        TrafficHistory(tmp_path).read()
