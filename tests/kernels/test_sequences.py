"""kernels.sequences: requests of one sequence run in their order, on the state that the one before them left."""

import contextlib
import select
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, refusal_of
from inference_messages import build_turn, decode_reply, encode_request
from onnx import TensorProto
from sequence_calls import PICK_STATE, SUM_STATE, SequenceLoader, add, encode_addend, encode_pick

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine, InferError
from kernels.sequence_rules import SequenceControl, SequenceRules, SequenceState
from kernels.session import Session

SHORT_US = 20_000
FLAGS = {
    TensorProto.INT32: np.array([0, 1], np.int32),
    TensorProto.FLOAT: np.array([-1, 2.5], np.float32),
    TensorProto.BOOL: np.array([False, True]),
}


@pytest.fixture
def loader(engine, tmp_path):
    """Loads models that keep sequences."""
    return SequenceLoader(engine, tmp_path)


@pytest.fixture
def queue(engine):
    """A completion queue of the engine."""
    return CompletionQueue(engine)


def await_count(engine, name, key, count):
    """Return once a counter of version 1 has a value."""
    while engine.statistics(name, 1)[key] != count:
        pass


def list_controls(element_type):
    """The three flags and the id of onnx_models.control_witness."""
    false, true = (value.tobytes() for value in FLAGS[element_type])
    flags = [SequenceControl(kind, kind, false, true) for kind in ("start", "ready", "end")]
    return [*flags, SequenceControl("id", "id")]


def see(engine, sequence, **options):
    """What the model `witness` was told with one request."""
    message = build_turn("witness", {"input": np.ones((1, 1), np.float32)}, sequence, **options).SerializeToString()
    reply = decode_reply(engine.infer(message))
    return [reply[f"{name}_seen"].ravel().tolist()[0] for name in ("start", "ready", "end", "id")]


# ---- one sequence


def test_state_is_handed_from_request_to_request(engine, loader):
    """Each sequence has its own; a text and a number of the same digits are two ids."""
    loader.load_sum()
    for sequence in (7, "7", 2**63 - 1, -1, "ä" * 64):
        assert add(engine, sequence, 1, start=True) == [[1, -1]]
    for sequence in (7, "7", 2**63 - 1, -1, "ä" * 64):
        assert add(engine, sequence, 10) == [[11, -11]]
        assert add(engine, sequence, 100, end=True) == [[111, -111]]
    assert engine.statistics("sum", 1)["sequences"] == 0


def test_sequence_begins_with_its_initial_state(engine, loader):
    """Zeros are only one choice."""
    loader.load_sum(states=[SUM_STATE._replace(initial=np.array([5, 7], np.int64).tobytes())])
    assert add(engine, 1, 1, start=True) == [[6, 6]]
    assert add(engine, 1, 1) == [[7, 5]]


def test_start_on_a_live_sequence_begins_it_anew(engine, loader):
    """Whatever the state was."""
    loader.load_sum()
    add(engine, 1, 3, start=True)
    assert add(engine, 1, 4, start=True) == [[4, -4]]
    assert add(engine, 1, 1) == [[5, -5]]
    assert engine.statistics("sum", 1)["sequences"] == 1


def test_single_request_is_a_whole_sequence(engine, loader):
    """It begins and ends with it, as often as one likes."""
    loader.load_sum(slots=1)
    for _ in range(3):
        assert add(engine, "once", 2, start=True, end=True) == [[2, -2]]


@pytest.mark.parametrize("sequence", [0, ""])
def test_request_without_a_sequence_is_refused(engine, loader, sequence):
    """0 and the empty text are no ids."""
    loader.load_sum()
    code, text = refusal_of(engine, encode_addend(sequence, 1, start=True))
    assert code == status.INVALID
    assert (
        "expected parameter 'sequence_id', a number other than 0 or a text, since model 'sum' keeps sequences" in text
    )
    without = encode_request("sum", {"input": np.zeros((1, 2), np.int64)})
    assert refusal_of(engine, without) == (code, text)


def test_unknown_sequence_needs_a_start(engine, loader):
    """One that has ended is as unknown as one that never was."""
    loader.load_sum()
    expected = "sequence 5 of model 'sum' is not under way; expected sequence_start with its first request"
    assert refusal_of(engine, encode_addend(5, 1)) == (status.INVALID, expected)
    add(engine, 5, 1, start=True, end=True)
    assert refusal_of(engine, encode_addend(5, 1)) == (status.INVALID, expected)
    assert "sequence 'five' of model" in refusal_of(engine, encode_addend("five", 1, end=True))[1]
    assert engine.statistics("sum", 1)["refused"] == 3


def test_request_of_several_rows_is_refused(engine, loader):
    """A sequence is one row of a batch."""
    loader.load_sum()
    message = build_turn("sum", {"input": np.zeros((2, 2), np.int64)}, 1, start=True).SerializeToString()
    code, text = refusal_of(engine, message)
    assert (code, text) == (
        status.INVALID,
        "the request has a batch of 2 rows; expected 1 from a request of a sequence",
    )


@pytest.mark.parametrize(
    ("name", "field", "value", "text"),
    [
        ("sequence_id", "bool_param", True, "parameter 'sequence_id' is neither an int64 nor a string"),
        ("sequence_id", "double_param", 1.0, "parameter 'sequence_id' is neither an int64 nor a string"),
        ("sequence_id", "string_param", "x" * 129, "parameter 'sequence_id' has 129 bytes; expected at most 128"),
        ("sequence_start", "int64_param", 1, "parameter 'sequence_start' is not a bool"),
        ("sequence_end", "string_param", "true", "parameter 'sequence_end' is not a bool"),
    ],
)
def test_parameter_of_wrong_type_is_refused(engine, loader, name, field, value, text):
    """By its name."""
    loader.load_sum()
    request = build_turn("sum", {"input": np.zeros((1, 2), np.int64)}, 1, start=True)
    setattr(request.parameters[name], field, value)
    assert refusal_of(engine, request.SerializeToString()) == (status.INVALID, text)


def test_unsigned_id_is_an_id(engine, loader):
    """One of the upper half, too."""
    loader.load_sum()
    request = build_turn("sum", {"input": np.ones((1, 2), np.int64)}, 1, start=True)
    request.parameters["sequence_id"].uint64_param = 2**64 - 1
    assert decode_reply(engine.infer(request.SerializeToString()))["output"].tolist() == [[1, 1]]
    assert add(engine, -1, 1) == [[2, 0]]


def test_model_without_sequences_takes_no_notice_of_their_parameters(engine, load):
    """As with Triton."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    rows = {"input": np.ones((2, 4), np.float32)}
    request = build_turn("same", rows, 5, end=True)
    request.parameters["sequence_start"].string_param = "no bool"
    assert decode_reply(engine.infer(request.SerializeToString()))["output"].shape == (2, 4)


# ---- what the server fills in


@pytest.mark.parametrize("element_type", FLAGS)
def test_controls_tell_where_in_its_sequence_a_request_is(engine, loader, element_type):
    """With the values that the configuration gives for false and true."""
    controls = list_controls(element_type)
    loader.load(onnx_models.control_witness(element_type), "witness", max_batch_size=4, controls=controls)
    false, true = FLAGS[element_type].tolist()
    assert see(engine, 41, start=True) == [true, true, false, 41]
    assert see(engine, 41) == [false, true, false, 41]
    assert see(engine, 41, end=True) == [false, true, true, 41]
    assert see(engine, 42, start=True, end=True) == [true, true, true, 42]


@pytest.mark.parametrize(
    ("element_type", "given", "refused"),
    [
        (TensorProto.UINT64, [1, 2**63 - 1], ["one"]),
        (TensorProto.INT64, [1, -(2**63)], ["one"]),
        (TensorProto.UINT32, [1, 2**32 - 1], [2**32, -1, "one"]),
        (TensorProto.INT32, [1, -(2**31)], [2**31, "one"]),
        (TensorProto.STRING, ["one", "ä\0z", "x" * 128], [1]),
    ],
)
def test_id_reaches_the_model_whole_or_not_at_all(engine, loader, element_type, given, refused):
    """An id that was cut might be another sequence's."""
    model = onnx_models.control_witness(id_type=element_type)
    loader.load(model, "witness", max_batch_size=4, controls=list_controls(TensorProto.INT32))
    for sequence in given:
        seen = see(engine, sequence, start=True)[3]
        assert (seen.decode() if isinstance(seen, bytes) else seen) == sequence
    for sequence in refused:
        message = build_turn("witness", {"input": np.ones((1, 1), np.float32)}, sequence, start=True)
        code, text = refusal_of(engine, message.SerializeToString())
        assert code == status.INVALID
        assert "cannot be given to the model, which takes ids as" in text


def test_tensors_of_the_server_are_hidden_from_callers(engine, loader):
    """They can neither be given nor asked for, and no answer has them."""
    loader.load_sum()
    rows = np.ones((1, 2), np.int64)
    code, text = refusal_of(
        engine, build_turn("sum", {"input": rows, "state": rows}, 1, start=True).SerializeToString()
    )
    assert (code, text) == (status.INVALID, "input 'state' is unknown; the model has 'input'")
    request = build_turn("sum", {"input": rows}, 1, start=True, outputs=["new_state"])
    code, text = refusal_of(engine, request.SerializeToString())
    assert (code, text) == (status.INVALID, "requested output 'new_state' is unknown; the model has 'output'")
    code, text = refusal_of(engine, build_turn("sum", {}, 1, start=True).SerializeToString())
    assert (code, text) == (status.INVALID, "input 'input' is missing; got 0 of 1 inputs")
    reply = decode_reply(engine.infer(build_turn("sum", {"input": rows}, 1, start=True).SerializeToString()))
    assert list(reply) == ["output"]


def test_state_output_can_be_shown(engine, loader):
    """For whoever wants to look at it."""
    loader.load_sum(shown={"new_state"})
    request = build_turn("sum", {"input": np.ones((1, 2), np.int64)}, 1, start=True)
    assert list(decode_reply(engine.infer(request.SerializeToString()))) == ["new_state", "output"]


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT, TensorProto.STRING])
def test_state_may_grow(engine, loader, element_type):
    """Its shape is what the last run gave; rows of different lengths run in different batches."""
    is_text = element_type == TensorProto.STRING
    state = SequenceState("state", "new_state", (1, 0), b"")
    loader.load(onnx_models.appender(element_type), "append", max_batch_size=8, states=[state])

    def append(sequence, element, **options):
        rows = np.array([[element]], object if is_text else np.float32)
        message = build_turn("append", {"input": rows}, sequence, **options).SerializeToString()
        return decode_reply(engine.infer(message))["output"].tolist()[0]

    for sequence in range(1, 5):
        written = []
        for position in range(sequence + 3):
            element = f"{sequence}.{position}\0".encode() if is_text else float(sequence * 100 + position)
            written.append(element)
            assert append(sequence, element, start=position == 0) == written


def test_model_without_batch_keeps_sequences(engine, loader):
    """One request a run, the whole tensor is the state."""
    state = SequenceState("state", "new_state", (3,), bytes(12))
    loader.load(onnx_models.accumulator(TensorProto.FLOAT, (3,)), "whole", states=[state])
    for turn in range(1, 5):
        for sequence in (1, "two"):
            rows = {"input": np.full(3, len(str(sequence)), np.float32)}
            message = build_turn("whole", rows, sequence, start=turn == 1).SerializeToString()
            assert decode_reply(engine.infer(message))["output"].tolist() == [len(str(sequence)) * turn] * 3


def test_large_state_is_run_on_where_it_lies(engine, loader):
    """A batch of one binds it without a copy; what is run on is not what is written to."""
    width = 5000
    state = SequenceState("state", "new_state", (1, width), bytes(4 * width))
    loader.load(onnx_models.accumulator(TensorProto.FLOAT, ("batch", width)), "wide", max_batch_size=2, states=[state])
    row = np.arange(width, dtype=np.float32)[None]
    for turn in range(1, 6):
        message = build_turn("wide", {"input": row}, 1, start=turn == 1).SerializeToString()
        np.testing.assert_array_equal(decode_reply(engine.infer(message))["output"], row * turn)


def test_state_of_another_shape_than_its_input_fails_the_request(engine, loader):
    """A model whose output is not what its own input takes; the state stays what it was."""
    state = SequenceState("state", "new_state", (1, 2), bytes(8))
    narrowed = [(-1, 2), (-1, 1)]
    loader.load(onnx_models.appender(), "append", max_batch_size=1, states=[state], narrowed=narrowed)
    message = build_turn("append", {"input": np.ones((1, 1), np.float32)}, 1, start=True).SerializeToString()
    code, text = refusal_of(engine, message)
    assert code == status.INTERNAL
    assert "state output 'new_state' has a shape that input 'state' does not take" in text


# ---- many at a time


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


# ---- ends that nobody asked for


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
    assert (code, text) == (status.EXPIRED, "the deadline passed while the request was queued")
    assert engine.statistics("sum", 1)["expired"] == 1
    assert add(engine, 1, 1) == [[2, -2]]


# ---- versions that come and go


def test_live_sequence_stays_with_the_version_that_began_it(engine, loader):
    """New ones are the new version's; the old one is freed once the last of its own has ended."""
    loader.load_sum()
    add(engine, 1, 1, start=True)
    initial = np.array([1000, 1000], np.int64).tobytes()
    states = [SUM_STATE._replace(initial=initial)]
    made = loader.prepare(onnx_models.accumulator(), "sum", states=states, max_batch_size=8)
    replaced = engine.exchange({("sum", 1): made})
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(engine.retire, replaced)
        assert add(engine, 2, 1, start=True) == [[1001, 999]]
        assert add(engine, 1, 1) == [[2, -2]]
        assert add(engine, 2, 1) == [[1002, 998]]
        assert not retiring.done()
        assert add(engine, 1, 1, end=True) == [[3, -3]]
        retiring.result()
    assert "is not under way" in refusal_of(engine, encode_addend(1, 1))[1]


@pytest.mark.parametrize("version", ["", "1"])
def test_live_sequence_outlives_the_unload_of_its_model(engine, loader, version):
    """Whoever begins one is refused; whoever has one finishes it."""
    loader.load_sum()
    add(engine, 1, 1, start=True, version=version)
    replaced = engine.exchange({("sum", 1): None})
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(engine.retire, replaced)
        assert refusal_of(engine, encode_addend(2, 1, start=True)) == (status.NOT_FOUND, "model 'sum' is unknown")
        assert refusal_of(engine, encode_addend(1, 1, version="2"))[0] == status.NOT_FOUND
        assert add(engine, 1, 1, end=True, version=version) == [[2, -2]]
        retiring.result()
    assert refusal_of(engine, encode_addend(1, 1)) == (status.NOT_FOUND, "model 'sum' is unknown")


def test_start_moves_a_live_sequence_to_the_new_version(engine, loader):
    """From then on its requests are the new version's."""
    loader.load_sum(idle_us=SHORT_US * 50)
    add(engine, 1, 1, start=True)
    made = loader.prepare(onnx_models.accumulator(), "sum", states=[SUM_STATE], max_batch_size=8)
    replaced = engine.exchange({("sum", 1): made})
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(engine.retire, replaced)
        assert add(engine, 1, 5, start=True) == [[5, -5]]
        assert add(engine, 1, 5) == [[10, -10]]
        retiring.result()
    assert add(engine, 1, 5) == [[15, -15]]


def test_sequences_of_a_replaced_version_have_their_time(tmp_path):
    """When it is up they are over, however long they might have been silent."""
    engine = Engine(sequence_drain_us=SHORT_US)
    loader = SequenceLoader(engine, tmp_path)
    loader.load_sum()
    add(engine, 1, 1, start=True)
    engine.unload("sum", 1)
    assert refusal_of(engine, encode_addend(1, 1)) == (status.NOT_FOUND, "model 'sum' is unknown")
    engine.close()


def test_closing_waits_for_no_silent_sequence(tmp_path):
    """Requests that wait for its slot run; also when another thread waits for sequences to end just then."""
    engine = Engine(workers=2)
    loader = SequenceLoader(engine, tmp_path)
    loader.load_sum(slots=1)
    add(engine, 1, 1, start=True)
    replaced = engine.exchange({("sum", 1): None})
    loader.load_sum(slots=1)
    add(engine, 2, 1, start=True)
    queue = CompletionQueue(engine)
    queue.submit(encode_addend(3, 7, start=True), "waits")
    queue.flush()
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(engine.retire, replaced)
        engine.close()
        retiring.result()
    assert select.select([queue.fileno()], [], [], 60)[0]
    [(_, code, reply)] = queue.drain()
    assert (code, decode_reply(reply)["output"].tolist()) == (status.OK, [[7, -7]])


# ---- rules


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"slots": 0}, "slots must be at least 1"),
        ({"idle_us": 0}, "idle_us from 1 to"),
        ({"states": [SUM_STATE._replace(input="nothing")]}, "the model has no input 'nothing'"),
        ({"states": [SUM_STATE._replace(output="nothing")]}, "the model has no output 'nothing'"),
        ({"states": [SUM_STATE, SUM_STATE]}, "cannot have two controls or states"),
        ({"states": [SUM_STATE._replace(shape=(1, 3))]}, "cannot begin with shape"),
        ({"states": [SUM_STATE._replace(shape=(1,))]}, "must have the same datatype and rank"),
        ({"states": [SUM_STATE._replace(initial=b"")]}, "does not have 0 bytes"),
        ({"controls": [SequenceControl("input", "id")]}, "has more than one element"),
        ({"controls": [SequenceControl("input", "start", b"0", b"1")]}, "has more than one element"),
    ],
)
def test_rules_that_do_not_fit_the_model_are_refused(tmp_path, options, text):
    """Before anything is served."""
    session = Session(onnx_models.save(onnx_models.accumulator(), tmp_path))
    with pytest.raises(ValueError, match=text):
        SequenceRules(session, **{"slots": 1, "idle_us": 1} | options)


def test_rules_are_of_the_session_that_they_were_made_for(engine, tmp_path):
    """Another one has nothing hidden."""
    first, second = (Session(onnx_models.save(onnx_models.accumulator(), tmp_path, name)) for name in ("a", "b"))
    with pytest.raises(ValueError, match="of another session"):
        engine.prepare("sum", 1, first, sequences=SequenceRules(second, slots=1, idle_us=1))


# ---- anything, in any order


class Replay:
    """What a sequence's answers must be, by what became of each of its requests, in the order in which they came."""

    def __init__(self, may_time_out):
        self._may_time_out = may_time_out
        self._is_live = False
        self._has_begun = False
        self._sum = 0

    def check(self, flags, index, code, payload):
        """Check the outcome of the next request."""
        start, end = flags
        if code == status.INVALID and "is not under way" in payload:
            # A sequence of which nothing ever ran may have been forgotten.
            assert not start
            assert not self._is_live or self._may_time_out or not self._has_begun
            self._is_live = False
            return
        assert start or self._is_live, (code, payload)
        if start:
            self._sum, self._has_begun = 0, False
        self._is_live = not end
        if code == status.OK:
            self._sum += index
            assert decode_reply(payload)["output"].tolist() == [self._sum]
        else:
            assert code in (status.CANCELLED, status.EXPIRED) or index > 9, payload
        self._has_begun |= code not in (status.CANCELLED, status.EXPIRED)


@pytest.mark.parametrize("idle_us", [600_000_000, 2000])
@pytest.mark.parametrize("seed", range(4))
def test_every_sequence_adds_up_whatever_happens(engine, loader, queue, seed, idle_us):
    """Random sequences, interleaved, with starts, ends, failures, deadlines, cancellations and silence at random."""
    generator = np.random.default_rng(seed)
    loader.load(
        onnx_models.picking_accumulator(),
        "pick",
        max_batch_size=4,
        states=[PICK_STATE],
        instance_count=1 + seed % 2,
        queue_delay_us=(0, 300)[seed // 2],
        slots=6,
        idle_us=idle_us,
        max_queue_requests=100_000,
    )
    sent, outcomes, calls = [], {}, []

    def take():
        outcomes.update({call.context: (code, payload) for call, code, payload in queue.drain()})

    for number in range(3000):
        sequence = int(generator.integers(1, 13))
        flags = bool(generator.random() < 0.15), bool(generator.random() < 0.15)
        index = int(generator.integers(0, 10)) if generator.random() < 0.95 else 99
        timeout_us = int(generator.integers(1, 3000)) if generator.random() < 0.1 else -1
        message = encode_pick(sequence if sequence % 2 else str(sequence), index, start=flags[0], end=flags[1])
        calls.append(queue.submit(message, number, b"", timeout_us))
        sent.append((sequence, flags, index))
        if generator.random() < 0.1:
            calls[int(generator.integers(max(0, number - 40), number + 1))].cancel()
        if generator.random() < 0.2:
            queue.flush()
            take()
    queue.flush()
    # What waits for slots of sequences that never end has its turn only now.
    ender = threading.Thread(target=engine.drain, args=(60.0,))
    ender.start()
    while len(outcomes) < len(sent):
        assert select.select([queue.fileno()], [], [], 60)[0]
        take()
    ender.join()
    replays = {}
    for number, (sequence, flags, index) in enumerate(sent):
        code, payload = outcomes[number]
        if code == status.CANCELLED and "before it was queued" in payload:
            continue
        if code == status.EXPIRED and "before the request arrived" in payload:
            continue
        replay = replays.setdefault(sequence, Replay(idle_us < 10_000))
        replay.check(flags, index, code, payload)
    counts = engine.statistics("pick", 1)
    assert counts["queued"] == counts["running"] == 0
    assert counts["success"] == sum(code == status.OK for code, _ in outcomes.values()) > 500


def test_ids_of_any_text_are_told_apart(engine, loader):
    """Hundreds of them at a time, of any length."""
    loader.load_sum(slots=600)
    names = [f"{'x' * (index % 17)}{index}" for index in range(300)] + list(range(1, 301))
    for value, name in enumerate(names):
        add(engine, name, value, start=True)
    for value, name in enumerate(names):
        assert add(engine, name, 1) == [[value + 1, -value - 1]]
    assert engine.statistics("sum", 1)["sequences"] == 600


def test_statistics_count_sequences_of_versions_that_keep_some(engine, load, loader):
    """Those under way; of other versions there is no number."""
    loader.load_sum()
    load(onnx_models.identity(), "same", max_batch_size=4)
    add(engine, 1, 1, start=True)
    add(engine, 2, 1, start=True)
    add(engine, 3, 1, start=True, end=True)
    assert engine.read_statistics("sum", 1).sequences == engine.statistics("sum", 1)["sequences"] == 2
    assert engine.read_statistics("same", 1).sequences is None
