"""service.yaml_document: plain data with the line of every value, and errors that name a line."""

import pytest

from service.yaml_document import YamlError, read_yaml

TEXT = """\
# a comment
models:
  digits: {1: first,
           2: [a, b]}
  letters: &same
    - 3
again: *same
"""


def test_yaml_is_read_with_texts_as_keys():
    """Numbers as keys too: what people write is what they see in an error."""
    data = read_yaml(TEXT).data
    assert data == {"models": {"digits": {"1": "first", "2": ["a", "b"]}, "letters": [3]}, "again": [3]}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 2),
        (("models",), 2),
        (("models", "digits", "1"), 3),
        (("models", "digits", "2", 1), 4),
        (("models", "letters", 0), 6),
        (("models", "letters", "no", "such"), 5),
    ],
)
def test_line_is_that_of_the_value_or_of_what_contains_it(path, line):
    """That of its key, counted from 1."""
    assert read_yaml(TEXT).find_line(path) == line


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_text_is_an_empty_mapping(text):
    """Or none at all, which the reader of the data refuses."""
    assert read_yaml(text).data in ({}, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [", "line 2: "),
        ("a: 1\n\na: 2", "line 3: key 'a' is there twice"),
        ("a:\n  &here [*here]", "line 2: a value that contains itself"),
        ("? [1]\n: 2", "line 1: expected a text as key"),
        ("a: \x00", "line 1: "),
        ("a: 1\nb: !!python/object:os.system x", "line 2: could not determine a constructor"),
        ("a: *nowhere", "line 1: found undefined alias"),
        ("[" * 5000, "line 1: "),
        ("a: 1\n--- \nb: 2", "line 2: "),
        ("a: 2020-99-99", "line 1: "),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_line(text, words):
    """Nothing else is raised, whatever the text."""
    with pytest.raises(YamlError) as refusal:
        read_yaml(text)
    assert str(refusal.value).startswith(words)


def test_text_that_multiplies_itself_is_refused():
    """References of references would be more values than any memory holds."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(YamlError, match="more than 1000000 values"):
        read_yaml("\n".join(lines))
