"""Permits: which actions on which models their rules allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.permit import ACTIONS, MAY_INFER, MAY_PIN, MAY_SHARE_MEMORY, Permit
from service.access_policy import matches_model

NAMES = st.text("ab*é", max_size=4)


@pytest.mark.parametrize(
    ("pattern", "model", "is_meant"),
    [
        ("digits", "digits", True),
        ("digits", "digit", False),
        ("digits", "digits2", False),
        ("digits*", "digits", True),
        ("digits*", "digits2", True),
        ("digits*", "digit", False),
        ("*", "digits", True),
        ("*", "", True),
        ("digits", "", False),
    ],
)
def test_rule_is_of_a_name_or_of_all_that_begin_so(pattern, model, is_meant):
    """A star ends a pattern, or is nothing special."""
    assert Permit([(pattern, MAY_INFER)]).actions(model) == (MAY_INFER if is_meant else 0)


@given(st.lists(st.tuples(NAMES, st.sampled_from(list(ACTIONS.values()))), max_size=4), NAMES)
def test_actions_are_those_of_the_policys_own_patterns(rules, model):
    """Whatever the names: what any rule allows is allowed, and nothing else."""
    wanted = 0
    for pattern, actions in rules:
        wanted |= actions if matches_model(pattern, model) else 0
    assert Permit(rules).actions(model) == wanted


def test_permit_without_rules_and_one_of_a_refusal_allow_nothing():
    """The latter whatever its rules say."""
    assert Permit().actions("digits") == 0
    assert Permit([("*", MAY_INFER | MAY_PIN | MAY_SHARE_MEMORY)], refusal="no").actions("digits") == 0
