"""What can be fuzzed by name: the targets, how their inputs are changed, and what they begin with."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from fuzz import seeds
from fuzz.mutation.frames import FramesMutator
from fuzz.mutation.message import MessageMutator
from fuzz.mutation.plain import BytesMutator
from fuzz.mutation.zipped import ZippedMutator


class Mutator(Protocol):
    """Makes new inputs of old ones."""

    def mutate(self, data: bytes, other: bytes, random: Random) -> bytes:
        """Change one input a little, with parts of another one perhaps."""

    def split(self, data: bytes) -> list[bytes]:
        """Cut an input into pieces of which some may be left out."""


@dataclass(frozen=True)
class Entry:
    """One target.

    Attributes
    ----------
    target : str
        Its "module:class", which only the process that runs it imports.
    mutator : Mutator
    make_seeds : callable
        Gives the first inputs.
    """

    target: str
    mutator: Mutator
    make_seeds: Callable[[], list[bytes]]


CATALOGUE = {
    "connection": Entry(
        "fuzz.targets.connection:ConnectionTarget",
        FramesMutator(seeds.WORDS, seeds.PATHS, seeds.FIELDS),
        seeds.make_connections,
    ),
    "headers": Entry(
        "fuzz.targets.headers:HeadersTarget", BytesMutator((*seeds.WORDS, b"\n", b":")), seeds.make_fields
    ),
    "inflate": Entry("fuzz.targets.inflate:InflateTarget", ZippedMutator(), seeds.make_zipped),
    "request": Entry("fuzz.targets.request:RequestTarget", MessageMutator(seeds.WORDS), seeds.make_requests),
}
