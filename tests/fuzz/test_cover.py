"""fuzz.cover: few and short inputs go where all went."""

from fuzz.corpus import Corpus
from fuzz.cover import Cover


def split(data):
    """Every byte is a piece."""
    return [bytes([byte]) for byte in data]


def make_corpus(*inputs):
    """A corpus of inputs that pass an edge for each of their bytes."""
    made = Corpus()
    for data in inputs:
        made.add(data, dict.fromkeys(data, 1))
    return made


def test_cover_passes_every_edge_with_few_inputs_and_short_ones():
    """An input that adds nothing is left out, and so are the bytes of another that add nothing."""
    corpus = make_corpus(b"aaaabb", b"ab", b"abcabcabcd", b"e", b"dd")
    chosen = Cover(frozenset, split).choose(corpus, 10)
    assert set(b"".join(chosen)) == set(b"abcde")
    assert sum(map(len, chosen)) == 5


def test_cover_stops_at_so_many_inputs():
    """Those that add most come first."""
    corpus = make_corpus(b"a", b"bcd", b"ef")
    assert Cover(frozenset, split).choose(corpus, 2) == [b"bcd", b"ef"]


def test_edge_that_is_not_passed_again_is_given_up():
    """It was chance."""
    corpus = make_corpus(b"ab", b"c")
    assert Cover(lambda data: frozenset(data) - {ord("a"), ord("b")}, split).choose(corpus, 10) == [b"c"]
