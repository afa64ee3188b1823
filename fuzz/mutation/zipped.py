"""Changes to compressed messages: to their bytes, or to what is inside, compressed anew in one way or another."""

import zlib
from random import Random

from fuzz.mutation.plain import MAX_INPUT_BYTES, BytesMutator

# The first byte chooses the encoding: 15 bits of window are deflate's, 31 gzip's.
WINDOW_BITS = (15, 31)
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
MAX_PLAIN_BYTES = 1 << 17


class ZippedMutator:
    """Changes one compressed message."""

    def __init__(self):
        self._bytes = BytesMutator((b"\x1f\x8b\x08", b"\x78\x9c", b"\x78\x01", b"\0\0\0\xff\xff"))

    def mutate(self, data: bytes, other: bytes, random: Random) -> bytes:
        """Change the bytes, or now and then the plain text."""
        if random.random() < 0.75 or not data:
            return self._bytes.mutate(data, other, random)
        plain = inflate(data)
        plain = self._bytes.mutate(plain, plain, random) * random.choice((1, 1, 1, 2, 50))
        return compress(plain[:MAX_PLAIN_BYTES], random)

    def split(self, data: bytes) -> list[bytes]:
        """Cut as bytes."""
        return self._bytes.split(data)


def inflate(data: bytes) -> bytes:
    """What can be inflated of an input's message."""
    try:
        return zlib.decompressobj(WINDOW_BITS[data[0] & 1]).decompress(data[1:], MAX_PLAIN_BYTES)
    except zlib.error:
        return data[1:]


def compress(plain: bytes, random: Random) -> bytes:
    """An input that inflates to some text."""
    choice = random.randrange(2)
    packer = zlib.compressobj(
        random.randrange(10), zlib.DEFLATED, WINDOW_BITS[choice], random.randint(1, 9), random.choice(STRATEGIES)
    )
    flush = random.choice((zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH))
    half = len(plain) // 2
    packed = packer.compress(plain[:half]) + (packer.flush(flush) if flush else b"") + packer.compress(plain[half:])
    return (bytes([choice]) + packed + packer.flush())[:MAX_INPUT_BYTES]
