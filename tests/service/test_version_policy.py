"""Which versions serve and what they are called: by the policy and the labels of a configuration."""

import pytest
from google.protobuf import text_format

from service.config_text import ModelConfigError
from service.pb.model_config_pb2 import ModelVersionPolicy
from service.version_policy import check_labels, check_policy, choose_versions, read_labels


@pytest.mark.parametrize(
    ("text", "found", "chosen"),
    [
        ("", [3, 1, 20], (1, 3, 20)),
        ("all {}", [3, 1, 20], (1, 3, 20)),
        ("latest {}", [3, 1, 20], (20,)),
        ("latest { num_versions: 2 }", [3, 1, 20], (3, 20)),
        ("latest { num_versions: 4294967295 }", [3, 1], (1, 3)),
        ("latest {}", [], ()),
        ("specific { versions: [ 20, 1, 20 ] }", [3, 1, 20], (1, 20)),
        ("specific { versions: 5 }", [3], (5,)),
    ],
)
def test_choose_versions_follows_the_policy(text, found, chosen):
    """Numbers count, not the order in which folders are read; what is named is chosen though it is not there."""
    policy = text_format.Parse(text, ModelVersionPolicy())
    check_policy(policy)
    assert choose_versions(policy, found) == chosen


def test_read_labels_gives_versions_by_label():
    """Blanks do not matter."""
    assert read_labels(" stable = 3 ,canary=14,_x.y-z=1") == {"stable": 3, "canary": 14, "_x.y-z": 1}


@pytest.mark.parametrize(
    "text",
    ["", "stable", "stable=", "=3", "3=3", "stable=0", "stable=03", "stable=-1", "a b=1", "a=1,", "é=1", "a=1;b=2"],
)
def test_read_labels_of_what_is_none_says_what_was_expected(text):
    """A label begins with a letter, so that no caller's number can mean one."""
    with pytest.raises(ModelConfigError, match="expected NAME=VERSION"):
        read_labels(text)


def test_read_labels_with_one_twice_is_refused():
    """It could mean either."""
    with pytest.raises(ModelConfigError, match="expected each label once; given 'stable again'"):
        read_labels("stable=1,stable=2")


def test_check_labels_wants_versions_that_are_chosen():
    """A label leads to what serves."""
    check_labels({"stable": 3}, (3, 4))
    with pytest.raises(ModelConfigError, match="expected versions that serve, which are 3, 4; given 'canary=5'"):
        check_labels({"stable": 3, "canary": 5}, (3, 4))
