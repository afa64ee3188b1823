"""kernels.sequence_gate and kernels.step_turns: steps that keep sequences see their requests as callers sent them."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, refusal_of
from ensemble_graphs import chain, echo, load_chain, load_ensemble, spec, step
from inference_messages import build_turn, decode_reply, encode_request
from onnx import TensorProto
from sequence_calls import SHORT_US, SUM_STATE, add, encode_addend

from kernels import status
from kernels.completions import CompletionQueue
from kernels.sequence_rules import SequenceState

WHOLE, MADE = spec("input", -1, 2, datatype="INT64"), spec("output", -1, 2, datatype="INT64")
INDEX, TOTAL = spec("index", -1, datatype="INT64"), spec("total", -1)
MISSING = 99  # that the table of `picker` has not
SLOW = 100_000


@pytest.fixture
def adding(engine, load, loader):
    """`adding`: numbers through `whole` to the sums of their sequences; other outputs need no sequence."""
    load(onnx_models.identity(TensorProto.INT64, ("batch", 2)), "whole", max_batch_size=8)
    loader.load_sum()
    outputs = [MADE, spec("between", -1, 2, datatype="INT64")]
    steps = [echo("input", "between", "whole"), echo("between", "output", "sum")]
    load_ensemble(engine, "adding", [WHOLE], outputs, steps, max_batch_size=8)
    return engine


def load_totals(engine, load, loader, **options):
    """`totals`: `picker`, which fails for an index beyond 9, before a sequence's sum of 1.5 times the indices."""
    load(onnx_models.picker(), "picker", max_batch_size=8)
    state = SequenceState("state", "new_state", (1,), bytes(4))
    loader.load(
        onnx_models.accumulator(TensorProto.FLOAT, ("batch",)), "adder", states=[state], max_batch_size=8, **options
    )
    steps = [
        step("picker", {"index": "index"}, {"output": "picked"}),
        step("adder", {"input": "picked"}, {"output": "total"}),
    ]
    load_ensemble(engine, "totals", [INDEX], [TOTAL], steps, max_batch_size=8)


def load_ordered(engine, load, loader, **options):
    """`ordered`: `slow`, as long as a request's numbers say and four at a time, before the sums of a sequence."""
    load(onnx_models.slow_by_value(), "slow", max_batch_size=1, instance_count=4)
    state = SequenceState("state", "new_state", (1, 4), bytes(16))
    loader.load(
        onnx_models.accumulator(TensorProto.FLOAT, ("batch", 4)), "adder", states=[state], max_batch_size=8, **options
    )
    load_chain(engine, "slow", "adder", name="ordered", max_batch_size=1)


def encode_total(sequence, index, **options):
    """A request to `totals`."""
    return build_turn("totals", {"index": np.array([index], np.int64)}, sequence, **options).SerializeToString()


def encode_slow(sequence, number, model="ordered", **options):
    """A request that takes as long as its number says."""
    return build_turn(model, {"input": np.full((1, 4), number, np.float32)}, sequence, **options).SerializeToString()


def sums_of(settled):
    """The first number of each answer, in the order of the calls' contexts; every one must be an answer."""
    assert {code for _, code, _ in settled} == {status.OK}, settled
    return [decode_reply(reply)["output"][0, 0] for _, _, reply in sorted(settled, key=lambda one: one[0].context)]


@pytest.mark.parametrize("sequence", [7, "seven", 2**63 - 1])
def test_step_keeps_the_sequences_of_its_ensembles_callers(adding, sequence):
    """By numbers and texts, from start to end; the model's own callers have the same ones."""
    assert add(adding, sequence, 1, "adding", start=True) == [[1, -1]]
    assert add(adding, sequence, 10, "adding") == [[11, -11]]
    assert add(adding, sequence, 100) == [[111, -111]]
    assert adding.statistics("sum", 1)["sequences"] == 1
    assert add(adding, sequence, 1000, "adding", end=True) == [[1111, -1111]]
    assert adding.statistics("sum", 1)["sequences"] == 0
    assert adding.pending_bytes == 0


def test_refusals_are_those_of_a_call_to_the_model_itself(adding):
    """With the names of ensemble and step before it, for that request alone."""
    add(adding, 1, 1, "adding", start=True)
    requests = [
        encode_addend(5, 1, "{}"),
        encode_addend(0, 1, "{}", start=True),
        encode_addend("x" * 129, 1, "{}", start=True),
        encode_request("{}", {"input": np.zeros((1, 2), np.int64)}),
        build_turn("{}", {"input": np.zeros((2, 2), np.int64)}, 1).SerializeToString(),
    ]
    wrong = build_turn("{}", {"input": np.zeros((1, 2), np.int64)}, 1)
    wrong.parameters["sequence_start"].int64_param = 1
    for message in (*requests, wrong.SerializeToString()):
        outcomes = [refusal_of(adding, rename(message, name)) for name in ("sum", "adding")]
        assert outcomes[0][0] == outcomes[1][0] == status.INVALID
        assert outcomes[1][1] == f"in ensemble 'adding', step 'sum': {outcomes[0][1]}"
    assert add(adding, 1, 10, "adding") == [[11, -11]]


def rename(message, name):
    """The same request to another model."""
    from service.pb.open_inference_pb2 import ModelInferRequest

    request = ModelInferRequest.FromString(message)
    request.model_name = name
    return request.SerializeToString()


def test_request_that_needs_no_such_step_needs_no_sequence(adding):
    """Whatever its parameters say, and of any number of rows."""
    rows = {"input": np.ones((3, 2), np.int64)}
    assert infer(adding, "adding", rows, outputs=["between"])["between"].tolist() == [[1, 1]] * 3
    assert adding.statistics("sum", 1)["success"] == 0


def test_controls_and_states_are_the_servers(engine, load, loader):
    """A step neither feeds them nor reads them."""
    load(onnx_models.identity(TensorProto.INT64, ("batch", 2)), "whole", max_batch_size=8)
    loader.load_sum()
    tensors = [WHOLE], [MADE]
    load_ensemble(engine, "fed", *tensors, [step("sum", {"input": "input", "state": "input"}, {"output": "output"})])
    load_ensemble(engine, "read", *tensors, [step("sum", {"input": "input"}, {"new_state": "output"})])
    faults = engine.ensembles()
    assert faults["fed", 1] == "its step 'sum' has no input 'state'"
    assert faults["read", 1] == "its step 'sum' has no output 'new_state'"


def test_two_steps_of_one_models_sequences_are_refused(adding):
    """They would share each sequence; within an ensemble as well."""
    steps = [echo("input", "between", "sum"), echo("between", "output", "adding")]
    load_ensemble(adding, "twice", [WHOLE], [MADE], steps, max_batch_size=8)
    assert adding.ensembles()["twice", 1] == (
        "two of its steps lead to 'sum', which keeps sequences: they would share each of them"
    )


def test_ensemble_with_a_response_cache_keeps_no_sequences(engine, loader):
    """Its answers depend on those before them. Whether the engine has a cache is no matter."""
    loader.load_sum()
    load_ensemble(engine, "cached", [WHOLE], [MADE], chain("sum"), max_batch_size=8, cache_replies=True)
    assert engine.ensembles()["cached", 1] == (
        "it has a response_cache, and its step 'sum' keeps sequences: an answer depends on those before it"
    )


def test_requests_of_a_sequence_reach_the_step_in_the_order_of_their_arrival(engine, load, loader):
    """Though the steps before it take longer for the earlier ones."""
    load_ordered(engine, load, loader)
    queue, numbers = CompletionQueue(engine), [SLOW, 3, SLOW // 2, 5, 7, SLOW // 4, 11]
    for index, number in enumerate(numbers):
        queue.submit(encode_slow("s", number, start=index == 0), index)
    queue.flush()
    assert sums_of(await_calls(queue, len(numbers))) == list(np.cumsum(numbers))


def test_sequences_do_not_wait_for_each_other(engine, load, loader):
    """One whose first step takes long holds up its own requests alone."""
    load_ordered(engine, load, loader)
    queue = CompletionQueue(engine)
    queue.submit(encode_slow(1, 100 * SLOW, start=True), 0)
    held = queue.submit(encode_slow(1, 1), 1)
    queue.flush()
    while engine.statistics("slow", 1)["running"] == 0:
        pass
    for sequence in ("1", 2):
        assert decode_reply(engine.infer(encode_slow(sequence, 5, start=True)))["output"][0, 0] == 5
    held.cancel()
    assert [(call.context, code) for call, code, _ in await_calls(queue, 1)] == [(1, status.CANCELLED)]
    [(_, code, _)] = await_calls(queue, 1)
    assert code == status.OK
    assert engine.pending_bytes == 0


def test_many_that_wait_follow_each_other(engine, load, loader):
    """Hundreds of one sequence, each begun by the one before it."""
    load_ordered(engine, load, loader, max_queue_requests=1000)
    queue, count = CompletionQueue(engine), 600
    for index in range(count):
        queue.submit(encode_slow("s", SLOW if index == 0 else 1, start=index == 0), index)
    queue.flush()
    assert sums_of(await_calls(queue, count)) == [SLOW + index for index in range(count)]


def test_failure_before_the_step_leaves_the_sequence_as_it_was(engine, load, loader):
    """Its state, and that it is not under way if the request was to begin it, nor over if it was to end it."""
    load_totals(engine, load, loader)
    code, text = refusal_of(engine, encode_total(1, MISSING, start=True))
    assert code == status.INVALID
    assert text.startswith("in ensemble 'totals', step 'picker': ")
    assert "is not under way" in refusal_of(engine, encode_total(1, 2))[1]
    assert engine.statistics("adder", 1)["sequences"] == 0
    assert decode_reply(engine.infer(encode_total(1, 2, start=True)))["total"].tolist() == [3.0]
    for options in ({}, {"end": True}, {"start": True}):
        assert refusal_of(engine, encode_total(1, MISSING, **options))[0] == status.INVALID
    assert decode_reply(engine.infer(encode_total(1, 4, end=True)))["total"].tolist() == [9.0]
    assert engine.statistics("adder", 1)["sequences"] == 0


def test_request_that_is_cancelled_before_the_step_leaves_the_sequence_as_it_was(engine, load, loader):
    """One that runs in a step before it, and one that waits for that one; those behind them go on."""
    load_ordered(engine, load, loader)
    assert decode_reply(engine.infer(encode_slow(1, 1, start=True)))["output"][0, 0] == 1
    queue = CompletionQueue(engine)
    calls = [queue.submit(encode_slow(1, number), index) for index, number in enumerate((50 * SLOW, 10, 100))]
    queue.flush()
    while engine.statistics("slow", 1)["running"] == 0:
        pass
    calls[1].cancel()
    calls[0].cancel()
    settled = {call.context: (code, reply) for call, code, reply in await_calls(queue, 3)}
    assert settled[0][0] == settled[1][0] == status.CANCELLED
    assert decode_reply(settled[2][1])["output"][0, 0] == 101
    assert engine.statistics("adder", 1)["success"] == 2
    assert engine.statistics("ordered", 1)["cancelled"] == 2
    assert engine.pending_bytes == 0


def test_silent_sequence_of_a_step_ends(adding, loader):
    """After the time that its model has for it."""
    loader.load_sum(idle_us=SHORT_US)
    add(adding, 1, 1, "adding", start=True)
    while adding.statistics("sum", 1)["sequences"] > 0:
        pass
    assert "is not under way" in refusal_of(adding, encode_addend(1, 1, "adding"))[1]


def test_ensembles_within_ensembles_keep_sequences_and_their_order(engine, load, loader):
    """Two of them with steps of their own before the sums."""
    load_ordered(engine, load, loader)
    load_chain(engine, "slow", "ordered", name="outer", max_batch_size=1)
    queue, numbers = CompletionQueue(engine), [SLOW, 3, SLOW // 2, 5]
    for index, number in enumerate(numbers):
        queue.submit(encode_slow("s", number, "outer", start=index == 0), index)
    queue.flush()
    assert sums_of(await_calls(queue, len(numbers))) == list(np.cumsum(numbers))
    code, text = refusal_of(engine, encode_slow("t", 1, "outer"))
    assert code == status.INVALID
    assert text.startswith("in ensemble 'outer', step 'ordered': in ensemble 'ordered', step 'adder': sequence 't' of")


def test_live_sequence_of_a_step_stays_with_the_version_that_began_it(adding, loader):
    """Through the ensemble too, while others begin on the new one; the old one is freed after the last."""
    add(adding, 1, 1, "adding", start=True)
    initial = np.array([1000, 1000], np.int64).tobytes()
    made = loader.prepare(
        onnx_models.accumulator(), "sum", states=[SUM_STATE._replace(initial=initial)], max_batch_size=8
    )
    replaced = adding.exchange({("sum", 1): made})
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(adding.retire, replaced)
        assert add(adding, 2, 1, "adding", start=True) == [[1001, 999]]
        assert add(adding, 1, 1, "adding") == [[2, -2]]
        assert not retiring.done()
        assert add(adding, 2, 1, "adding") == [[1002, 998]]
        assert add(adding, 1, 1, "adding", end=True) == [[3, -3]]
        retiring.result()
    assert "is not under way" in refusal_of(adding, encode_addend(1, 1, "adding"))[1]


def test_sequence_that_begins_while_its_version_is_replaced_goes_on_there(engine, load, loader):
    """The request was on its way to the old one, which is kept for that though it has no sequence yet."""
    load_ordered(engine, load, loader)
    queue = CompletionQueue(engine)
    queue.submit(encode_slow("s", 20 * SLOW, start=True), 0)
    queue.flush()
    while engine.statistics("slow", 1)["running"] == 0:
        pass
    state = SequenceState("state", "new_state", (1, 4), bytes(16))
    model = onnx_models.accumulator(TensorProto.FLOAT, ("batch", 4))
    made = loader.prepare(model, "adder", states=[state], max_batch_size=8)
    replaced = engine.exchange({("adder", 1): made})
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(engine.retire, replaced)
        assert sums_of(await_calls(queue, 1)) == [20 * SLOW]
        reply = engine.infer(encode_slow("s", 5, end=True))
        assert decode_reply(reply)["output"][0, 0] == 20 * SLOW + 5
        retiring.result()
    assert engine.statistics("adder", 1)["success"] == 0


def test_new_edition_of_an_ensemble_goes_on_with_the_sequences_of_its_steps(engine, load, loader):
    """In the order of arrival, whichever edition a request came to."""
    load_ordered(engine, load, loader)
    queue, numbers = CompletionQueue(engine), [20 * SLOW, 3, 5, 7]
    replaced = []
    for index, number in enumerate(numbers):
        queue.submit(encode_slow("s", number, start=index == 0), index)
        queue.flush()
        replaced += replace_ordered(engine)
    settled = await_calls(queue, len(numbers))
    engine.retire(replaced)
    assert sums_of(settled) == list(np.cumsum(numbers))


def replace_ordered(engine):
    """Put a new edition of `ordered` in place; returns the old one, which is still to be retired."""
    from kernels.ensemble import Ensemble

    graph = Ensemble([spec("input", -1, 4)], [spec("output", -1, 4)], chain("slow", "adder"))
    return engine.exchange({("ordered", 1): engine.prepare_ensemble("ordered", 1, graph, max_batch_size=1)})


class Sums:
    """What sequences of `totals` come to, request by request, as docs/sequences.md and docs/ensembles.md say."""

    def __init__(self):
        self.live = {}

    def expect(self, sequence, index, start, end):
        """The total, or None for a request that is refused."""
        if index == MISSING or (not start and sequence not in self.live):
            return None
        total = index * 1.5 + (0 if start else self.live[sequence])
        self.live[sequence] = total
        if end:
            del self.live[sequence]
        return total


@pytest.mark.parametrize("seed", range(8))
def test_random_sequences_through_an_ensemble_come_to_their_sums(engine, load, loader, seed):
    """Many at a time, in bursts, with failures before the step, unknown sequences and ends anywhere."""
    chance, sums, queue = random.Random(seed), Sums(), CompletionQueue(engine)
    load_totals(engine, load, loader, slots=64)
    names, expected = [*range(1, 9), "1", "b", "c" * 128], []
    for number in range(300):
        sequence, index = chance.choice(names), chance.choice([*range(10), MISSING])
        start, end = chance.random() < 0.3, chance.random() < 0.2
        expected.append(sums.expect(sequence, index, start, end))
        queue.submit(encode_total(sequence, index, start=start, end=end), number)
        if chance.random() < 0.1:
            queue.flush()
    queue.flush()
    for call, code, reply in await_calls(queue, len(expected)):
        if expected[call.context] is None:
            assert code == status.INVALID
        else:
            assert code == status.OK, reply
            assert decode_reply(reply)["total"].tolist() == [expected[call.context]]
    assert engine.drain(60.0)
    assert engine.statistics("adder", 1)["sequences"] == len(sums.live)
    assert engine.statistics("totals", 1)["running"] == 0
    assert engine.pending_bytes == 0


@pytest.mark.parametrize("seed", range(8))
def test_random_cancellations_leave_nobody_behind(engine, load, loader, seed):
    """At any moment, of those that run and those that wait; whoever is answered has a sum of some of the others'."""
    chance, queue, calls = random.Random(seed), CompletionQueue(engine), []
    load_ordered(engine, load, loader, slots=64)
    load_chain(engine, "ordered", name="outer", max_batch_size=1)
    for index in range(200):
        model, sequence = chance.choice(["ordered", "outer"]), chance.randint(1, 3)
        message = encode_slow(sequence, chance.choice([1, 1, 1, 2000]), model, start=index < 20)
        calls.append(queue.submit(message, index, timeout_us=chance.choice([-1, -1, -1, 2000])))
        if chance.random() < 0.3:
            queue.flush()
        if chance.random() < 0.3:
            chance.choice(calls).cancel()
    queue.flush()
    settled = await_calls(queue, len(calls))
    assert {id(call) for call, _, _ in settled} == {id(call) for call in calls}
    assert {code for _, code, _ in settled} <= {
        status.OK,
        status.CANCELLED,
        status.EXPIRED,
        status.EXHAUSTED,
        status.INVALID,
    }
    assert engine.drain(60.0)
    assert engine.pending_bytes == 0
    assert all(engine.statistics(name, 1)["running"] == 0 for name in ("ordered", "outer", "slow", "adder"))
