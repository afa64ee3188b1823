"""kernels.request_queue, batch_rules and settle_order: who waits where, for how long, and what runs when."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import nonce_rows, refusal_of, submit_all
from inference_messages import build_request, encode_request
from waiting_line import BUSY_ITERATIONS, WaitingLine

from kernels import status
from kernels.queue_options import MAX_LEVELS, QueueOptions, QueuePolicy
from kernels.session import Session

LONG_US = 60_000_000
# Long beside a look at the clock, short beside the request that keeps a model busy.
SHORT_US = 20_000


@pytest.fixture
def line(engine, load):
    """Load `moody` and get a line of requests for it: line(QueueOptions(...), **options of Engine.load)."""

    def make(queueing, *, max_batch_size=1, **options):
        load(onnx_models.slow_by_value(), "moody", max_batch_size=max_batch_size, queueing=queueing, **options)
        return WaitingLine(engine)

    return make


def counts_of(engine):
    """The counters of `moody`."""
    return engine.read_statistics("moody", 1).counts


def dispatches_of(engine):
    """Why its batches left the queue, without reasons that there were not."""
    return {reason: count for reason, count in engine.read_statistics("moody", 1).dispatches.items() if count}


# ---- levels


def test_most_urgent_level_runs_first_and_each_in_its_order(line):
    """1 before 2 before 3; who names none, 0, or what is no level, has the default."""
    requests = line(QueueOptions(levels=(QueuePolicy(),) * 3, default_level=2))
    requests.occupy()
    for name, priority in [("c", 3), ("b", None), ("a", 1), ("bb", 2), ("bbb", 2**64 - 1), ("aa", 1), ("bbbb", 0)]:
        requests.add(name, priority=priority)
    assert requests.take_all() == ["a", "aa", "b", "bb", "bbb", "bbbb", "c"]


def test_priority_without_levels_changes_nothing(line):
    """As with Triton, whose clients may send it to any model."""
    requests = line(QueueOptions())
    requests.occupy()
    for name, priority in [("first", 7), ("second", 1)]:
        requests.add(name, priority=priority)
    assert requests.take_all() == ["first", "second"]


def test_batch_takes_from_all_levels(engine, line):
    """What is less urgent fills the batch."""
    requests = line(QueueOptions(levels=(QueuePolicy(),) * 2), max_batch_size=4)
    requests.occupy()
    for name, priority in [("b", 2), ("a", 1), ("bb", 2)]:
        requests.add(name, priority=priority)
    assert requests.take_all() == ["a", "b", "bb"]
    assert counts_of(engine)["executions"] == 2


def test_full_level_refuses_and_others_take(engine, line):
    """max_requests is a level's own."""
    requests = line(QueueOptions(levels=(QueuePolicy(max_requests=2), QueuePolicy())))
    requests.occupy()
    for name, priority in [("a", 1), ("aa", 1), ("aaa", 1), ("b", 2), ("bb", 2), ("bbb", 2)]:
        requests.add(name, priority=priority)
    [(name, code, text)] = requests.take(1)
    assert (name, code) == ("aaa", status.EXHAUSTED)
    assert "is full: 2 requests wait at this priority" in text
    assert requests.take_all() == ["a", "aa", "b", "bb", "bbb"]
    assert counts_of(engine)["rejected"] == 1


# ---- timeouts


def test_timeout_gives_a_request_up_while_the_model_is_busy(engine, line):
    """It is settled when its time is over, and is counted as what it is."""
    requests = line(QueueOptions(levels=(QueuePolicy(timeout_us=SHORT_US),)))
    requests.occupy()
    begun = time.monotonic()
    requests.add("late")
    assert requests.take(1) == [("late", status.EXPIRED, "the request's timeout passed while it was queued")]
    assert time.monotonic() - begun >= SHORT_US / 1e6
    assert engine.statistics("moody", 1)["running"] == 1
    assert requests.take_all() == []
    counts = counts_of(engine)
    assert (counts["timed_out"], counts["expired"], counts["executions"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("policy", "timeout_us", "expires"),
    [
        (QueuePolicy(takes_timeouts=True), SHORT_US, True),
        (QueuePolicy(timeout_us=LONG_US, takes_timeouts=True), SHORT_US, True),
        (QueuePolicy(timeout_us=SHORT_US, takes_timeouts=True), LONG_US, True),
        (QueuePolicy(timeout_us=SHORT_US, takes_timeouts=True), 2**63 - 1, True),
        (QueuePolicy(timeout_us=LONG_US, takes_timeouts=False), SHORT_US, False),
        (QueuePolicy(timeout_us=LONG_US, takes_timeouts=True), 0, False),
    ],
)
def test_request_may_name_a_shorter_time_where_it_is_allowed(line, policy, timeout_us, expires):
    """Never a longer one, and 0 names none."""
    requests = line(QueueOptions(levels=(policy,)))
    requests.occupy()
    requests.add("asked", timeout_us=timeout_us)
    if expires:
        assert [name for name, code, _ in requests.take(1) if code == status.EXPIRED] == ["asked"]
        assert requests.take_all() == []
    else:
        assert requests.take_all() == ["asked"]


def test_earlier_of_deadline_and_timeout_counts(engine, line):
    """A call's own deadline holds beside the queue's time."""
    requests = line(QueueOptions(levels=(QueuePolicy(timeout_us=LONG_US),)))
    requests.occupy()
    requests.add("hasty", deadline_us=SHORT_US)
    assert requests.take(1) == [("hasty", status.EXPIRED, "Deadline Exceeded while the request was queued")]
    requests.take_all()
    counts = counts_of(engine)
    assert (counts["timed_out"], counts["expired"]) == (0, 1)


def test_postponed_request_runs_behind_its_level_and_before_less_urgent_ones(line):
    """It waits for those that are in time, and is answered."""
    requests = line(QueueOptions(levels=(QueuePolicy(takes_timeouts=True, postpones=True), QueuePolicy())))
    requests.occupy()
    requests.add("late", priority=1, timeout_us=SHORT_US // 2)
    requests.add("later", priority=1, timeout_us=SHORT_US)
    time.sleep(2 * SHORT_US / 1e6)
    for name, priority in [("b", 2), ("a", 1), ("aa", 1)]:
        requests.add(name, priority=priority)
    assert requests.take_all() == ["a", "aa", "late", "later", "b"]


def test_postponed_request_still_has_its_deadline(line):
    """Behind the others it is given up like any."""
    requests = line(QueueOptions(levels=(QueuePolicy(timeout_us=SHORT_US, postpones=True),)))
    requests.occupy()
    requests.add("late", deadline_us=3 * SHORT_US)
    assert [(name, code) for name, code, _ in requests.take(1)] == [("late", status.EXPIRED)]
    requests.take_all()


def test_postponed_request_may_be_cancelled(engine, line):
    """It is found where it waits."""
    requests = line(QueueOptions(levels=(QueuePolicy(timeout_us=SHORT_US, postpones=True),)))
    requests.occupy()
    late = requests.add("late")
    time.sleep(2 * SHORT_US / 1e6)
    late.cancel()
    assert [(name, code) for name, code, _ in requests.take(1)] == [("late", status.CANCELLED)]
    assert engine.statistics("moody", 1)["queued"] == 0
    requests.take_all()


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", [{"int64_param": -1}, {"string_param": "1"}, {"bool_param": True}])
def test_parameter_that_is_no_count_is_refused(engine, load, name, value):
    """With its name."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    message = build_request("same", {"input": nonce_rows(1, 1)})
    for field, given in value.items():
        setattr(message.parameters[name], field, given)
    code, text = refusal_of(engine, message.SerializeToString())
    assert (code, text) == (status.INVALID, f"parameter '{name}' is not a whole number of at least 0")


# ---- when a batch runs


def test_preferred_size_does_not_wait_for_the_delay(engine, line):
    """Four rows, where four are preferred and eight may run."""
    requests = line(QueueOptions(preferred_batch_sizes=(4, 2)), max_batch_size=8, queue_delay_us=LONG_US)
    requests.add("pair", rows=2)
    assert requests.take_all() == ["pair"]
    for name in ("a", "b"):
        requests.add(name)
    assert requests.take_all() == ["a", "b"]
    assert dispatches_of(engine) == {"preferred": 2}


def test_largest_preferred_size_that_is_there_goes(engine, line):
    """Of seven rows four, then two; the last waits for what may come."""
    requests = line(QueueOptions(preferred_batch_sizes=(2, 4)), max_batch_size=8, queue_delay_us=LONG_US)
    requests.add("a", rows=4)
    requests.take_all()
    with ThreadPoolExecutor(1) as threads:
        message = encode_request("moody", {"input": np.full((2, 4), BUSY_ITERATIONS, np.float32)})
        busy = threads.submit(engine.infer, message)
        while engine.statistics("moody", 1)["running"] == 0:
            pass
        for index in range(7):
            requests.add(index)
        assert [name for name, _, _ in requests.take(6)] == list(range(6))
        busy.result()
    assert engine.drain(30)
    assert requests.take_all() == [6]
    sizes = [(batch.rows, batch.executions) for batch in engine.read_statistics("moody", 1).batches]
    assert sizes == [(1, 1), (2, 2), (4, 2)]
    assert dispatches_of(engine) == {"preferred": 4, "drain": 1}


def test_any_size_goes_when_the_delay_is_over(engine, line):
    """Preferred sizes are preferences."""
    requests = line(QueueOptions(preferred_batch_sizes=(4,)), max_batch_size=8, queue_delay_us=SHORT_US)
    requests.add("a", rows=3)
    assert requests.take_all() == ["a"]
    assert dispatches_of(engine) == {"delay": 1}


def test_requests_that_pass_every_preferred_size_go(engine, line):
    """Three rows and three, where four are preferred: no row could be added to either."""
    requests = line(QueueOptions(preferred_batch_sizes=(4,)), max_batch_size=8, queue_delay_us=LONG_US)
    for name in ("a", "b"):
        requests.add(name, rows=3)
    assert [name for name, _, _ in requests.take(1)] == ["a"]
    assert engine.drain(30)
    assert requests.take_all() == ["b"]
    assert dispatches_of(engine) == {"preferred": 1, "drain": 1}


def test_lonely_request_does_not_wait_for_the_delay(engine, line):
    """Where that is asked for, and nobody else is in flight."""
    requests = line(QueueOptions(skips_delay_alone=True), max_batch_size=8, queue_delay_us=LONG_US)
    for name in ("a", "b"):
        requests.add(name)
        assert requests.take_all() == [name]
    assert dispatches_of(engine) == {"alone": 2}


def test_request_beside_another_waits_for_the_delay(engine, line):
    """Until the other is done, since it is alone then."""
    requests = line(QueueOptions(skips_delay_alone=True), max_batch_size=8, queue_delay_us=LONG_US, instance_count=2)
    requests.occupy()
    requests.add("a")
    assert engine.statistics("moody", 1)["queued"] == 1
    assert requests.take_all() == ["a"]
    assert dispatches_of(engine) == {"alone": 2}


def test_full_batch_deadline_and_drain_are_told_apart(engine, line):
    """Each leaves the queue for a reason of its own."""
    requests = line(QueueOptions(), max_batch_size=2, queue_delay_us=LONG_US)
    requests.add("full", rows=2)
    requests.take_all()
    requests.add("hasty", deadline_us=LONG_US // 2)
    requests.take_all()
    requests.add("last")
    assert engine.drain(30)
    assert requests.take_all() == ["last"]
    assert dispatches_of(engine) == {"full": 1, "deadline": 1, "drain": 1}


def test_deadline_is_kept_in_mind_when_a_batch_leaves_it_behind(engine, line):
    """The second of two that would expire within the delay does not fit the first's batch, and is not forgotten."""
    requests = line(QueueOptions(), max_batch_size=4, queue_delay_us=LONG_US)
    requests.add("a", rows=3, deadline_us=LONG_US // 2)
    requests.add("b", rows=3, deadline_us=LONG_US // 2)
    assert sorted(requests.take_all()) == ["a", "b"]


# ---- order


@pytest.mark.parametrize("keeps_order", [True, False])
def test_answers_keep_the_order_only_where_asked(line, keeps_order):
    """Of two instances the second is done long before the first."""
    requests = line(QueueOptions(keeps_order=keeps_order), instance_count=2)
    requests.occupy()
    for index in range(10):
        requests.add(index)
    settled = [name for name, _, _ in requests.take(11)]
    assert settled == (["busy", *range(10)] if keeps_order else [*range(10), "busy"])


def test_order_is_kept_by_sessions_with_lanes(engine, tmp_path):
    """As with two sessions on GPUs."""
    path = onnx_models.save(onnx_models.slow_by_value(), tmp_path, "moody")
    sessions = [Session(path, device="cpu:staged") for _ in range(2)]
    engine.load("moody", 1, sessions, max_batch_size=1, buffer_sets=2, queueing=QueueOptions(keeps_order=True))
    requests = WaitingLine(engine)
    requests.occupy()
    for index in range(10):
        requests.add(index)
    assert [name for name, _, _ in requests.take(11)] == ["busy", *range(10)]


def test_order_is_kept_past_requests_that_fail(engine, load):
    """A batch that fails is run one by one, and each is answered in its turn."""
    options = QueueOptions(keeps_order=True)
    load(onnx_models.picker(), "picker", max_batch_size=4, queue_delay_us=LONG_US, instance_count=2, queueing=options)
    requests = {index: build_request("picker", {"index": np.array([index], np.int64)}) for index in (1, 99, 2, 3)}
    settled = [(call.context, code == status.OK) for call, code, _ in submit_all(engine, requests)]
    assert settled == [(1, True), (99, False), (2, True), (3, True)]


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"levels": (QueuePolicy(),) * (MAX_LEVELS + 1)}, "at most 1024 levels"),
        ({"default_level": 2}, "default_level"),
        ({"levels": (QueuePolicy(timeout_us=-1),)}, "timeout_us"),
        ({"levels": (QueuePolicy(max_requests=-1),)}, "max_requests"),
        ({"preferred_batch_sizes": (9,)}, "from 1 to 8"),
        ({"preferred_batch_sizes": (0,)}, "from 1 to 8"),
        ({"preferred_batch_sizes": (1,) * 65}, "at most 64"),
    ],
)
def test_options_out_of_range_are_refused(engine, tmp_path, options, text):
    """Before anything is loaded."""
    path = onnx_models.save(onnx_models.tiny(), tmp_path)
    with pytest.raises(ValueError, match=text):
        engine.load("tiny", 1, Session(path), max_batch_size=8, queueing=QueueOptions(**options))
    assert engine.versions() == {}
