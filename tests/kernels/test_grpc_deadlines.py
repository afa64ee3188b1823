"""Deadlines: which calls have expired, how long nothing can, and that calls that have ended leave nothing behind."""

from kernels.grpc_deadlines import Deadlines


def test_deadlines_without_calls_leave_the_whole_limit():
    """Nothing can expire."""
    deadlines = Deadlines()
    assert deadlines.seconds_left(now=5.0, limit=1.0) == 1.0
    assert deadlines.pop_expired(now=5.0) == []


def test_expired_calls_come_in_the_order_of_their_deadlines():
    """Each once; equal deadlines in the order in which the calls came."""
    deadlines = Deadlines()
    for call, deadline in [("late", 9.0), ("b", 2.0), ("a", 1.0), ("c", 2.0)]:
        deadlines.add(call, deadline)
    assert deadlines.seconds_left(now=0.25, limit=5.0) == 0.75
    assert deadlines.pop_expired(now=2.0) == ["a", "b", "c"]
    assert deadlines.pop_expired(now=2.0) == []
    assert deadlines.seconds_left(now=2.0, limit=5.0) == 5.0
    assert deadlines.seconds_left(now=10.0, limit=5.0) == 0.0


def test_discarded_call_never_expires():
    """Discarding it again, or one that is not there, does nothing."""
    deadlines = Deadlines()
    deadlines.add("a", 1.0)
    deadlines.add("b", 1.0)
    for call in ("a", "a", "other"):
        deadlines.discard(call)
    assert len(deadlines) == 1
    assert deadlines.pop_expired(now=1.0) == ["b"]
    deadlines.discard("b")


def test_calls_that_end_long_before_their_deadline_do_not_pile_up():
    """A client may give an hour to each of a million calls."""
    deadlines = Deadlines()
    deadlines.add("stays", 3600.0)
    for number in range(10_000):
        deadlines.add(number, 3600.0)
        deadlines.discard(number)
    assert len(deadlines._heap) < 200
    assert deadlines.pop_expired(now=3600.0) == ["stays"]
