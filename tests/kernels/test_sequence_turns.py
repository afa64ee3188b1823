"""kernels.sequences: whose turn it is, who waits, and what becomes of those whose request is given up."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, refusal_of
from inference_messages import build_turn, decode_reply
from memory_objects import MemoryObject, place_tensor
from onnx import TensorProto
from sequence_calls import PICK_STATE, SHORT_US, add, encode_addend, encode_pick

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import InferError
from kernels.queue_options import QueueOptions, QueuePolicy
from kernels.sequence_rules import SequenceState
from tests.kernels import ways


@pytest.fixture
def queue(engine):
    """A completion queue of the engine."""
    return CompletionQueue(engine)


def await_count(engine, name, key, count):
    """Return once a counter of version 1 has a value."""
    while engine.statistics(name, 1)[key] != count:
        pass


@ways.every_way
def test_rows_of_many_sequences_run_in_one_batch(engine, loader):
    """Each gets its own row and its own state."""
    loader.load_sum(queue_delay_us=10_000_000)
    with ThreadPoolExecutor(8) as threads:
        for turn in range(1, 4):
            sums = list(threads.map(lambda s, t=turn: add(engine, s, 10**s, start=t == 1), range(1, 9)))
            assert sums == [[[turn * 10**s, -turn * 10**s]] for s in range(1, 9)]
    counts = engine.statistics("sum", 1)
    assert (counts["executions"], counts["rows"]) == (3, 24)


def test_enough_rows_wait_for_no_more(engine, loader):
    """A batch that is not full goes once as many are there as were asked for."""
    loader.load_sum(queue_delay_us=60_000_000, enough_rows=3)
    with ThreadPoolExecutor(3) as threads:
        assert len(list(threads.map(lambda s: add(engine, s, 1, start=True), range(1, 4)))) == 3
    assert engine.statistics("sum", 1)["executions"] == 1


@ways.every_way
def test_requests_that_come_together_run_in_their_order(engine, loader, queue):
    """However many of one sequence wait at a time."""
    loader.load_sum(instance_count=2, queue_delay_us=50)
    expected = {}
    for turn in range(1, 60):
        for sequence in (1, 2, 3):
            flags = {"start": turn % 20 == 1, "end": turn % 20 == 0}
            queue.submit(encode_addend(sequence, sequence * turn, **flags), (sequence, turn))
            first = turn - (turn - 1) % 20
            expected[sequence, turn] = sequence * sum(range(first, turn + 1))
    queue.flush()
    done = {call.context: (code, payload) for call, code, payload in await_calls(queue, len(expected))}
    for key, total in expected.items():
        code, reply = done[key]
        assert code == status.OK, reply
        assert decode_reply(reply)["output"].tolist() == [[total, -total]]
    assert engine.statistics("sum", 1)["sequences"] == 3


def test_sequence_waits_for_a_slot(engine, loader, queue):
    """With two slots the third sequence begins when one of the two has ended."""
    loader.load_sum(slots=2)
    add(engine, 1, 1, start=True)
    add(engine, 2, 1, start=True)
    queue.submit(encode_addend(3, 5, start=True), "third")
    queue.submit(encode_addend(3, 6), "third again")
    queue.flush()
    assert add(engine, 2, 1) == [[2, -2]]
    assert engine.statistics("sum", 1)["queued"] == 2
    assert queue.drain() == []
    add(engine, 1, 1, end=True)
    replies = [decode_reply(reply)["output"].tolist() for _, _, reply in await_calls(queue, 2)]
    assert replies == [[[5, -5]], [[11, -11]]]


def test_next_sequence_of_an_id_waits_behind_those_that_came_before(engine, loader, queue):
    """Whoever uses an id again and again does not keep its slot from others."""
    loader.load_sum(slots=1)
    add(engine, 1, 1, start=True)
    requests = {"other": (2, True), "end": (1, False), "again": (1, True)}
    for name, (sequence, start) in requests.items():
        queue.submit(encode_addend(sequence, 1, start=start, end=name != "again"), name)
    queue.flush()
    assert [call.context for call, _, _ in await_calls(queue, 3)] == ["end", "other", "again"]


def test_sequences_that_wait_are_bounded(engine, loader, queue):
    """As many requests as a queue takes wait for a slot, and they do not keep those from going on that have one."""
    loader.load_sum(slots=1, max_queue_requests=3)
    add(engine, 1, 1, start=True)
    for sequence in range(2, 5):
        queue.submit(encode_addend(sequence, 1, start=True, end=True), sequence)
    queue.flush()
    code, text = refusal_of(engine, encode_addend(5, 1, start=True))
    assert code == status.EXHAUSTED
    assert "is full: 3 requests wait" in text
    add(engine, 1, 1, end=True)
    assert [code for _, code, _ in await_calls(queue, 3)] == [status.OK] * 3
    assert engine.statistics("sum", 1)["sequences"] == 0


def test_requests_that_wait_in_a_sequence_are_bounded(engine, loader, queue):
    """Those behind the one that runs are in the queue, too."""
    loader.load_sum(queue_delay_us=500_000, max_queue_requests=4)
    for number in range(12):
        queue.submit(encode_addend(1, 1, start=number == 0), number)
    queue.flush()
    done = {call.context: (code, reply) for call, code, reply in await_calls(queue, 12)}
    assert [done[number][0] for number in range(12)] == [status.OK] * 4 + [status.EXHAUSTED] * 8
    assert [decode_reply(done[number][1])["output"][0, 0] for number in range(4)] == [1, 2, 3, 4]


def test_request_behind_others_is_given_up_by_its_timeout(engine, loader, queue):
    """The time that the queue's policy gives it runs from its arrival, wherever it waits."""
    policy = QueuePolicy(timeout_us=SHORT_US)
    loader.load_sum(slots=1, queueing=QueueOptions(levels=(policy,)))
    add(engine, 1, 1, start=True)
    queue.submit(encode_addend(2, 1, start=True), "second")
    queue.flush()
    ((_, code, text),) = await_calls(queue, 1)
    assert (code, text) == (status.EXPIRED, "the request's timeout passed while it was queued")
    assert engine.statistics("sum", 1)["timed_out"] == 1
    assert add(engine, 1, 1, end=True) == [[2, -2]]


def test_answers_in_order_let_the_next_turns_begin_at_once(engine, loader, queue):
    """However long an answer is kept back for another sequence's, its own goes on."""
    loader.load_sum(instance_count=2, queueing=QueueOptions(keeps_order=True))
    for turn in range(1, 40):
        for sequence in (1, 2):
            queue.submit(encode_addend(sequence, 1, start=turn == 1), (sequence, turn))
    queue.flush()
    done = await_calls(queue, 78)
    for sequence in (1, 2):
        own = [reply for call, _, reply in done if call.context[0] == sequence]
        assert [decode_reply(reply)["output"][0, 0] for reply in own] == list(range(1, 40))


def test_silent_sequence_ends_and_gives_its_slot_away(engine, loader):
    """The other one's answer comes when the first has been idle for long enough."""
    loader.load_sum(slots=1, idle_us=SHORT_US)
    add(engine, 1, 1, start=True)
    assert add(engine, 2, 1, start=True, end=True) == [[1, -1]]
    assert "is not under way" in refusal_of(engine, encode_addend(1, 1))[1]


def test_silent_sequences_end_where_nobody_waits(engine, loader):
    """All of them, and what they held is given back."""
    loader.load_sum(idle_us=SHORT_US)
    for sequence in range(1, 6):
        add(engine, sequence, 1, start=True)
    await_count(engine, "sum", "sequences", 0)
    assert "is not under way" in refusal_of(engine, encode_addend(3, 1))[1]


def test_failed_request_leaves_the_state_as_it_was(engine, loader):
    """Alone or in a batch: those that ran with it have theirs."""
    loader.load(onnx_models.picking_accumulator(), "pick", max_batch_size=2, states=[PICK_STATE], queue_delay_us=10**7)

    def pick(sequence, index, **flags):
        with contextlib.suppress(InferError):
            return decode_reply(engine.infer(encode_pick(sequence, index, **flags)))["output"].tolist()

    with ThreadPoolExecutor(2) as threads:
        for indices, sums in [
            ((3, 4), ([3], [4])),
            ((99, 1), (None, [5])),
            ((2, 99), ([5], None)),
            ((1, 1), ([6], [6])),
        ]:
            start = indices == (3, 4)
            found = threads.map(lambda s, index, start=start: pick(s, index, start=start), (1, 2), indices)
            assert tuple(found) == sums


def test_first_request_that_fails_has_begun_its_sequence(engine, loader):
    """And the last one has ended it, whatever became of it."""
    loader.load(onnx_models.picking_accumulator(), "pick", max_batch_size=1, states=[PICK_STATE])
    refusal_of(engine, encode_pick(1, 99, start=True))
    assert decode_reply(engine.infer(encode_pick(1, 2)))["output"].tolist() == [2]
    refusal_of(engine, encode_pick(1, 99, end=True))
    assert "is not under way" in refusal_of(engine, encode_pick(1, 1))[1]


def test_cancelled_request_leaves_the_state_as_it_was(engine, loader, queue):
    """Those behind it go on without it."""
    loader.load_sum(slots=1)
    add(engine, 1, 1, start=True)
    calls = [queue.submit(encode_addend(2, 10**place, start=place == 0), place) for place in range(5)]
    queue.flush()
    calls[1].cancel()
    calls[3].cancel()
    add(engine, 1, 1, end=True)
    done = {call.context: (code, reply) for call, code, reply in await_calls(queue, 5)}
    assert [done[place][0] for place in range(5)] == [status.OK, status.CANCELLED] * 2 + [status.OK]
    assert decode_reply(done[4][1])["output"].tolist() == [[10101, -10101]]


def test_request_that_is_cancelled_while_it_runs_leaves_the_state_as_it_was(engine, loader, queue):
    """Its run is finished, and what came of it is dropped."""
    state = SequenceState("sum", "new_sum", (1, 4), bytes(16))
    loader.load(onnx_models.slow_accumulator(), "slow", max_batch_size=1, states=[state])

    def submit(value, **flags):
        message = build_turn("slow", {"input": np.full((1, 4), value, np.float32)}, 1, outputs=["total"], **flags)
        call = queue.submit(message.SerializeToString(), value)
        queue.flush()
        return call

    submit(1, start=True)
    await_calls(queue, 1)
    call = submit(2)
    await_count(engine, "slow", "queued", 0)
    call.cancel()
    submit(4)
    done = {call.context: (code, reply) for call, code, reply in await_calls(queue, 2)}
    assert done[2] == (status.CANCELLED, "the request was cancelled while it ran")
    assert decode_reply(done[4][1])["total"].tolist() == [[5, 5, 5, 5]]


def test_answer_that_cannot_be_delivered_leaves_the_state_as_it_was(engine, loader):
    """The run was well, and its text does not fit the place that the client has for it."""
    state = SequenceState("state", "new_state", (1, 0), b"")
    loader.load(onnx_models.appender(TensorProto.STRING), "append", max_batch_size=2, states=[state])
    with MemoryObject(bytes(16)) as memory:
        engine.shared_memory.register("room", memory.key, 0, 16)
        for text, room, fits in ((b"a", 16, True), (b"bcd" * 9, 16, False), (b"e", 16, True)):
            rows = {"input": np.array([[text]], object)}
            request = build_turn("append", rows, 1, start=text == b"a", outputs=["output"])
            place_tensor(request.outputs[0], "room", room)
            if fits:
                engine.infer(request.SerializeToString())
            else:
                assert "its place in shared memory has 16" in refusal_of(engine, request.SerializeToString())[1]
        assert memory.read(0, 10) == b"\1\0\0\0a\1\0\0\0e"


def test_cancelled_start_still_begins_anew(engine, loader, queue):
    """What comes behind it does not go on with what was before it."""
    loader.load_sum(slots=1)
    add(engine, 1, 1, start=True)
    calls = [
        queue.submit(encode_addend(2, value, start=start), value) for value, start in ((1, 1), (2, 0), (4, 1), (8, 0))
    ]
    queue.flush()
    calls[2].cancel()
    add(engine, 1, 1, end=True)
    done = {call.context: (code, reply) for call, code, reply in await_calls(queue, 4)}
    assert done[4][0] == status.CANCELLED
    assert decode_reply(done[8][1])["output"].tolist() == [[8, -8]]


def test_sequence_whose_requests_were_all_cancelled_before_it_began_is_none(engine, loader, queue):
    """It waited for a slot, and nothing of it is left."""
    loader.load_sum(slots=1)
    add(engine, 1, 1, start=True)
    call = queue.submit(encode_addend(2, 1, start=True), "only")
    queue.flush()
    call.cancel()
    assert await_calls(queue, 1)[0][1] == status.CANCELLED
    assert engine.statistics("sum", 1)["sequences"] == 1
    assert "is not under way" in refusal_of(engine, encode_addend(2, 1))[1]


def test_request_that_waits_for_a_slot_expires(engine, loader):
    """At its deadline, though nothing else happens."""
    loader.load_sum(slots=1)
    add(engine, 1, 1, start=True)
    code, text = refusal_of(engine, encode_addend(2, 1, start=True), timeout_us=SHORT_US)
    assert (code, text) == (status.EXPIRED, "Deadline Exceeded while the request was queued")
    assert engine.statistics("sum", 1)["expired"] == 1
    assert add(engine, 1, 1) == [[2, -2]]
