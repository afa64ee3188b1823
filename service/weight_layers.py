"""What stands in each place that a model's weights come from, and what Envoy makes of it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

# Above these Envoy ignores a value, and chooses no version at all.
MAX_VALUE = 2**64 - 1
MAX_TOTAL = 2**32 - 1
# As the parser that Envoy has reads them: 010 is 8, 08 is 8.
_NUMBERS = (
    (re.compile(r"\+?0[xX][0-9a-fA-F]+"), lambda text: int(text, 16)),
    (re.compile(r"0[0-7]+"), lambda text: int(text, 8)),
    (re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII), float),
)


@dataclass(frozen=True)
class WeightLayers:
    """A model's weights by place, the later of which wins: declared, in the file that lasts, given to the admin.

    Attributes
    ----------
    declared
        By version number, of every version: what the routes were rendered with.
    lasting, overrides
        By version number, where there is one: the text in the file's layer of the runtime, and in the admin's.
    """

    declared: Mapping[int, int]
    lasting: Mapping[int, str]
    overrides: Mapping[int, str]

    @property
    def in_force(self) -> dict[int, int]:
        """The weights that Envoy goes by: where the uppermost text is no weight, that is the declared one."""
        texts = {**self.lasting, **self.overrides}
        return {number: read_weight(texts.get(number, ""), weight) for number, weight in self.declared.items()}

    @property
    def effective_overrides(self) -> dict[int, int]:
        """What the admin's texts come to."""
        return {number: read_weight(text, self.declared[number]) for number, text in self.overrides.items()}

    @property
    def effective_lasting(self) -> dict[int, int]:
        """What the file's texts come to, and for versions that it lacks, the declared weights."""
        return {number: read_weight(self.lasting.get(number, ""), weight) for number, weight in self.declared.items()}


def read_weight(text: str, otherwise: int) -> int:
    """The weight that Envoy reads from a runtime value; what is no number of its kind counts as not there."""
    for form, convert in _NUMBERS:
        if form.fullmatch(text.strip()):
            value = convert(text)
            return int(value) if math.isfinite(value) and 0 <= value <= MAX_VALUE else otherwise
    return otherwise


def find_shares(weights: Mapping[int, int]) -> dict[int, float]:
    """The share of the traffic, from 0 to 1, that weights come to; none for anybody where they select nothing."""
    total = sum(weights.values())
    return {number: weight / total if 0 < total <= MAX_TOTAL else 0.0 for number, weight in weights.items()}
