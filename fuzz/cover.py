"""Few and short inputs that together pass nearly every edge that a search has found: what is committed."""

from collections.abc import Callable

from fuzz.corpus import Corpus

# An input of so many bytes more must pass twice as many edges to be preferred.
FAIR_BYTES = 1024


class Cover:
    """Chooses and shortens.

    Parameters
    ----------
    pass_edges
        Runs an input; the edges that it passes.
    split
        Cuts an input into the pieces that may be left out.
    """

    def __init__(self, pass_edges: Callable[[bytes], frozenset[int]], split: Callable[[bytes], list[bytes]]):
        self._pass_edges = pass_edges
        self._split = split

    def choose(self, corpus: Corpus, most: int) -> list[bytes]:
        """Up to so many inputs; each the one that adds most for its size to those before, shortened."""
        chosen: list[bytes] = []
        left = set().union(*corpus.edges)
        while left and len(chosen) < most:
            best = max(range(len(corpus.inputs)), key=lambda n: self._worth(corpus, n, left))
            # Again, since chance may have had a part in it.
            wanted = corpus.edges[best] & left & self._pass_edges(corpus.inputs[best])
            left -= corpus.edges[best]
            if wanted:
                chosen.append(self._shorten(corpus.inputs[best], wanted))
                left -= self._pass_edges(chosen[-1])
        return chosen

    @staticmethod
    def _worth(corpus: Corpus, index: int, left: set[int]) -> float:
        return len(corpus.edges[index] & left) / (FAIR_BYTES + len(corpus.inputs[index]))

    def _shorten(self, data: bytes, wanted: frozenset[int]) -> bytes:
        """Leave out pieces, halves first, without which the wanted edges are passed too."""
        pieces = self._split(data)
        size = len(pieces) // 2
        while size:
            place = 0
            while place < len(pieces):
                shorter = pieces[:place] + pieces[place + size :]
                if wanted <= self._pass_edges(b"".join(shorter)):
                    pieces = shorter
                else:
                    place += size
            size //= 2
        return b"".join(pieces)
