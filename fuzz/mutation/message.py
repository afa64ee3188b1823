"""Changes to protobuf messages, field by field, with the lengths around a change put right."""

from dataclasses import dataclass, replace
from random import Random

from fuzz.mutation.plain import BytesMutator

VARINT, FIXED64, DELIMITED, START_GROUP, END_GROUP, FIXED32 = range(6)
SIZES = {FIXED64: 8, FIXED32: 4}
VALUES = (0, 1, 2, 4, 8, 16, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 100, 2**29 - 1)
DEPTHS = (1, 2, 97, 98, 99, 100, 101)
DESCEND = 0.7


@dataclass(frozen=True)
class Field:
    """A field as it stands on the wire: its tag's number and its value, a length-delimited one without the length."""

    tag: int
    value: bytes

    def encode(self) -> bytes:
        """The field on the wire."""
        length = encode_varint(len(self.value)) if self.tag & 7 == DELIMITED else b""
        return encode_varint(self.tag) + length + self.value


class MessageMutator:
    """Changes one message at some depth, or its bytes where it is none."""

    def __init__(self, words: tuple[bytes, ...] = ()):
        self._bytes = BytesMutator(words)

    def mutate(self, data: bytes, other: bytes, random: Random) -> bytes:
        """Make one change."""
        fields = split_message(data)
        if not fields or random.random() < 0.2:
            return self._bytes.mutate(data, other, random)
        index = random.randrange(len(fields))
        if fields[index].tag & 7 == DELIMITED and random.random() < DESCEND:
            fields[index] = replace(fields[index], value=self.mutate(fields[index].value, other, random))
        else:
            fields = random.choice(CHANGES)(self, fields, index, other, random)
        return b"".join(field.encode() for field in fields)

    def split(self, data: bytes) -> list[bytes]:
        """Cut between fields."""
        return [field.encode() for field in split_message(data)] or self._bytes.split(data)

    def _drop(self, fields, index, _other, _random):
        return fields[:index] + fields[index + 1 :]

    def _repeat(self, fields, index, _other, random):
        return fields[:index] + [fields[index]] * random.choice((2, 2, 2, 3, 9, 40)) + fields[index + 1 :]

    def _move(self, fields, index, _other, random):
        rest = fields[:index] + fields[index + 1 :]
        place = random.randrange(len(rest) + 1)
        return [*rest[:place], fields[index], *rest[place:]]

    def _renumber(self, fields, index, _other, random):
        tag = random.choice(NUMBERS) << 3 | fields[index].tag & 7
        return [*fields[:index], replace(fields[index], tag=tag), *fields[index + 1 :]]

    def _retype(self, fields, index, _other, random):
        tag = fields[index].tag & ~7 | random.randrange(8)
        return [*fields[:index], replace(fields[index], tag=tag), *fields[index + 1 :]]

    def _set_value(self, fields, index, other, random):
        if fields[index].tag & 7 == VARINT:
            value = encode_varint(random.choice(VALUES))
        else:
            value = self._bytes.mutate(fields[index].value, other, random)
        return [*fields[:index], replace(fields[index], value=value), *fields[index + 1 :]]

    def _wrap(self, fields, index, _other, random):
        """Nest the field in a message, or in groups, of some number."""
        number = random.choice(NUMBERS) << 3
        if random.random() < 0.5:
            return [*fields[:index], Field(number | DELIMITED, fields[index].encode()), *fields[index + 1 :]]
        depth = random.choice(DEPTHS)
        opened, closed = [Field(number | START_GROUP, b"")] * depth, [Field(number | END_GROUP, b"")] * depth
        return [*fields[:index], *opened, fields[index], *closed, *fields[index + 1 :]]

    def _take(self, fields, index, other, random):
        taken = split_message(other)
        return [*fields[:index], random.choice(taken), *fields[index:]] if taken else fields


CHANGES = (
    MessageMutator._drop,
    MessageMutator._repeat,
    MessageMutator._move,
    MessageMutator._renumber,
    MessageMutator._retype,
    MessageMutator._set_value,
    MessageMutator._set_value,
    MessageMutator._set_value,
    MessageMutator._wrap,
    MessageMutator._take,
)


def split_message(data: bytes) -> list[Field]:
    """The fields of a message; none when it is not one."""
    fields, place = [], 0
    while place < len(data):
        tag, place = read_varint(data, place)
        start, kind = place, tag & 7
        if kind == DELIMITED:
            size, start = read_varint(data, place)
            place = start + size
        elif kind == VARINT:
            _, place = read_varint(data, place)
        elif kind not in (START_GROUP, END_GROUP):
            place += SIZES.get(kind, len(data) + 1)
        if place > len(data):
            return []
        fields.append(Field(tag, data[start:place]))
    return fields


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The varint at that place, and the place behind it: behind everything when it is cut off."""
    value = shift = 0
    while place < len(data) and shift < 70:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 0x80:
            return value, place
    return value, len(data) + 1


def encode_varint(value: int) -> bytes:
    """A varint in as few bytes as it needs."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
