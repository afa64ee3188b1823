"""kernels.retry_info writes what googleapis' own messages read, and would write themselves."""

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from kernels.retry_info import encode_status

# As kernels/failure.pxd has it, and the NUL.
MAX_TEXT_BYTES = 511


def make_status(code, text, retry_ns):
    """The same message, by protobuf."""
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(retry_ns)
    made = status_pb2.Status(code=code, message=text)
    made.details.add().Pack(retry)
    return made


@given(
    code=st.integers(1, 16),
    text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100),
    retry_ns=st.integers(0, 2**63 - 1),
)
def test_encode_status_reads_as_googleapis_has_it(code, text, retry_ns):
    """Any code, text and time."""
    encoded = encode_status(code, text.encode(), retry_ns)
    assert status_pb2.Status.FromString(encoded).message == text
    read = error_details_pb2.RetryInfo()
    assert status_pb2.Status.FromString(encoded).details[0].Unpack(read)
    assert read.retry_delay.seconds * 10**9 + read.retry_delay.nanos == retry_ns
    assert status_pb2.Status.FromString(encoded).code == code


@pytest.mark.parametrize("retry_ns", [1_500_000, 7_000_000_123])
def test_encode_status_equals_protobufs_own(retry_ns):
    """Field by field."""
    ours = status_pb2.Status.FromString(encode_status(8, b"too late", retry_ns))
    assert ours == make_status(8, "too late", retry_ns)


def test_encode_status_cuts_a_text_that_no_failure_has():
    """Nothing is written beyond the buffer."""
    encoded = encode_status(8, b"x" * 10_000, 1)
    assert status_pb2.Status.FromString(encoded).message == "x" * MAX_TEXT_BYTES
