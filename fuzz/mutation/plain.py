"""Changes to bytes of which nothing is known."""

from random import Random

NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 129, 254, 255)
WIDE_NUMBERS = (0, 1, 255, 256, 4096, 16383, 16384, 16385, 32767, 32768, 65535, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
MAX_CHANGES = 6
MAX_PART_BYTES = 64
PIECES = 64
MAX_INPUT_BYTES = 1 << 16


class BytesMutator:
    """Flips, cuts, copies and inserts bytes, and words of a dictionary.

    Parameters
    ----------
    words
        What the target may look for.
    """

    def __init__(self, words: tuple[bytes, ...] = ()):
        self._words = words or (b"\0",)

    def mutate(self, data: bytes, other: bytes, random: Random) -> bytes:
        """Make one to a few changes."""
        for _ in range(1 + int(random.expovariate(0.7)) % MAX_CHANGES):
            data = random.choice(CHANGES)(self, data, other, random)[:MAX_INPUT_BYTES]
        return data

    def split(self, data: bytes) -> list[bytes]:
        """Cut into so many pieces, or bytes."""
        size = -(-len(data) // PIECES)
        return [data[place : place + size] for place in range(0, len(data), size)] if data else []

    def _flip_bit(self, data, _other, random):
        return put(data, random, lambda byte: byte ^ 1 << random.randrange(8))

    def _set_byte(self, data, _other, random):
        return put(
            data, random, lambda byte: random.choice(NUMBERS) if random.random() < 0.5 else random.randrange(256)
        )

    def _add(self, data, _other, random):
        return put(data, random, lambda byte: byte + random.choice((-16, -3, -2, -1, 1, 2, 3, 16)) & 0xFF)

    def _set_number(self, data, _other, random):
        size = random.choice((2, 3, 4, 8))
        number = random.choice(WIDE_NUMBERS) % (1 << 8 * size)
        return replace_part(data, size, number.to_bytes(size, random.choice(("big", "little"))), random)

    def _cut(self, data, _other, random):
        return replace_part(data, part_size(random), b"", random)

    def _truncate(self, data, _other, random):
        return data[: random.randrange(len(data) + 1)]

    def _repeat(self, data, _other, random):
        part = choose_part(data, random)
        return replace_part(data, 0, part * random.choice((1, 1, 1, 2, 8, 64)), random)

    def _insert(self, data, _other, random):
        return replace_part(data, 0, random.randbytes(random.randint(1, 8)), random)

    def _insert_word(self, data, _other, random):
        return replace_part(data, 0, random.choice(self._words), random)

    def _set_word(self, data, _other, random):
        word = random.choice(self._words)
        return replace_part(data, len(word), word, random)

    def _take_part(self, data, other, random):
        part = choose_part(other, random)
        return replace_part(data, random.choice((0, len(part))), part, random)

    def _cross(self, data, other, random):
        place = random.randrange(min(len(data), len(other)) + 1)
        return data[:place] + other[place:]


CHANGES = (
    BytesMutator._flip_bit,
    BytesMutator._set_byte,
    BytesMutator._set_byte,
    BytesMutator._set_byte,
    BytesMutator._add,
    BytesMutator._set_number,
    BytesMutator._cut,
    BytesMutator._truncate,
    BytesMutator._repeat,
    BytesMutator._insert,
    BytesMutator._insert_word,
    BytesMutator._set_word,
    BytesMutator._take_part,
    BytesMutator._cross,
)


def put(data: bytes, random: Random, change) -> bytes:
    """Change one byte, if there is any."""
    if not data:
        return data
    place = random.randrange(len(data))
    return data[:place] + bytes([change(data[place])]) + data[place + 1 :]


def part_size(random: Random) -> int:
    """How long a part is: mostly short."""
    return random.randint(1, random.choice((4, 16, MAX_PART_BYTES)))


def choose_part(data: bytes, random: Random) -> bytes:
    """Some bytes in a row."""
    place = random.randrange(len(data) + 1)
    return data[place : place + part_size(random)]


def replace_part(data: bytes, size: int, new: bytes, random: Random) -> bytes:
    """Put something in the place of so many bytes, anywhere."""
    place = random.randrange(len(data) + 1)
    return data[:place] + new + data[place + size :]
