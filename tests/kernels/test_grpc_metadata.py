"""Metadata on their way out: what may be sent, and what is refused."""

import pytest

from kernels.grpc_metadata import RESERVED, check_metadata


def test_metadata_that_may_be_sent_stay_as_they_are():
    """Text, bytes under a binary key, and repeated keys; bytes of ASCII count as text, as in grpcio."""
    pairs = [("a", "x"), ("a", ""), ("a.b_c-d0", " ~"), ("blob-bin", b"\x00\xff"), ("raw", b"x"), (b"key", "x")]
    assert check_metadata(pairs) == (*pairs[:4], ("raw", "x"), ("key", "x"))
    assert check_metadata([("grpc-status-details-bin", b"")]) == (("grpc-status-details-bin", b""),)


@pytest.mark.parametrize("nothing", [None, (), []])
def test_no_metadata_are_none(nothing):
    """In whatever form."""
    assert check_metadata(nothing) == ()


@pytest.mark.parametrize("key", ["", "A", "a b", ":path", "ä", "a\n", *sorted(RESERVED)])
def test_key_that_cannot_be_sent_is_refused(key):
    """One is enough."""
    with pytest.raises(ValueError, match="metadata was invalid"):
        check_metadata([("fine", "x"), (key, "x")])


@pytest.mark.parametrize(
    ("key", "value"), [("a", "ä"), ("a", "\t"), ("a", "x\r\n"), ("a", b"\x80"), ("a", 1), ("a", None), ("a-bin", "x")]
)
def test_value_that_cannot_be_sent_is_refused(key, value):
    """Text is printable ASCII, binary values are bytes."""
    with pytest.raises(ValueError, match="metadata was invalid"):
        check_metadata([("fine", "x"), (key, value)])
