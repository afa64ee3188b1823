"""kernels.idempotency: a request with a key is computed once, and each caller gets its own answer or its own error."""

import random
import select

import numpy as np
import onnx_models
import pytest
from engine_calls import nonce_rows
from inference_messages import build_request, decode_reply, encode_request
from memory_objects import MemoryObject, place_tensor
from sequence_calls import encode_addend
from ways import every_way

from kernels import status
from kernels.blocking_call import InferError
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.queue_options import QueueOptions
from kernels.session import Session

BOOK_BYTES = 1 << 20
# Of what keeping an answer takes, at least, beside its bytes.
ENTRY_BYTES = 150
TURNS = 4000


@pytest.fixture
def engine():
    """An engine that keeps answers, closed at the end."""
    made = Engine(workers=4, idempotency_bytes=BOOK_BYTES)
    yield made
    made.close()


@pytest.fixture
def queue(engine):
    """A completion queue of the engine."""
    return CompletionQueue(engine)


def make_key(queue, key="key", peer=b"", forwarded=b"", token=b""):
    """The digest of a key and its caller."""
    return queue.make_key((key.encode(),), peer, forwarded, token)


def collect(queue):
    """Wait for everything in flight; return {context: (code, payload, is_replayed)}."""
    results = {}
    queue.flush()
    while queue.in_flight:
        assert select.select([queue.fileno()], [], [], 60)[0], "no completion within a minute"
        for call, code, payload in queue.drain():
            assert call.context not in results
            results[call.context] = (code, payload, call.is_replayed)
    return results


def ask(queue, message, key):
    """One request and what came of it."""
    queue.submit(message, "only", key=key)
    return collect(queue)["only"]


def dice_message(index=0, model="dice", **options):
    """A request whose answer is another one at each run."""
    return encode_request(model, {"input": nonce_rows(index, 1)}, **options)


def is_clean(engine):
    """Whether nobody waits and no byte of a message is held."""
    return engine.idempotency_usage()["waiting"] == 0 and engine.pending_bytes == 0


@every_way
def test_same_request_under_a_key_is_run_once(engine, load, queue):
    """At one time and later: the same bytes, of which only the first caller's are not a repetition."""
    load(onnx_models.dice(), "dice", max_batch_size=8)
    key = make_key(queue)
    for index in range(5):
        queue.submit(dice_message(), index, key=key)
    together = collect(queue)
    later = ask(queue, dice_message(), key)
    assert {together[index][:2] for index in range(5)} == {later[:2]}
    assert [together[index][2] for index in range(5)] == [False, True, True, True, True]
    assert later[2]
    assert engine.statistics("dice", 1)["success"] == engine.statistics("dice", 1)["executions"] == 1
    assert is_clean(engine)


def test_requests_without_a_key_or_under_others_are_run(engine, load, queue):
    """Keys change nothing for those that have none."""
    load(onnx_models.dice(), "dice", max_batch_size=1)
    keys = [b"", b"", make_key(queue, "a"), make_key(queue, "b")]
    for index, key in enumerate(keys):
        queue.submit(dice_message(), index, key=key)
    assert len({payload for _, payload, _ in collect(queue).values()}) == len(keys)
    assert engine.idempotency_usage()["runs"] == 2


def test_key_with_another_message_is_refused(engine, load, queue):
    """While the first one runs, and once it is answered; that one's answer stays."""
    load(onnx_models.dice(), "dice", max_batch_size=1)
    key = make_key(queue)
    queue.submit(dice_message(1), "first", key=key)
    queue.submit(dice_message(2), "other", key=key)
    results = collect(queue)
    assert results["other"][0] == ask(queue, dice_message(1, request_id="x"), key)[0] == status.INVALID
    assert "this key came with another message before" in results["other"][1]
    assert ask(queue, dice_message(1), key)[:2] == results["first"][:2]
    assert engine.idempotency_usage()["conflicts"] == 2


def test_another_callers_key_is_another_key(engine, load, queue):
    """Whoever repeats somebody else's key and message has it computed anew."""
    load(onnx_models.dice(), "dice", max_batch_size=1)
    first, second = (ask(queue, dice_message(), make_key(queue, "key", peer)) for peer in (b"alice", b"bob"))
    assert first[0] == second[0] == status.OK
    assert first[1] != second[1]
    assert not second[2]


def test_engine_that_keeps_no_answers_refuses_keys():
    """Nobody is to believe that a retry is safe."""
    engine = Engine(workers=1)
    with pytest.raises(InferError, match="keeps no answers") as refusal:
        CompletionQueue(engine).make_key((b"key",), b"", b"", b"")
    assert refusal.value.code == status.UNIMPLEMENTED
    assert not any(engine.idempotency_usage().values())
    engine.close()


@every_way
def test_run_goes_on_when_its_callers_leave(engine, load, queue):
    """The first one, then all: whoever comes back finds the answer of the one run."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message, key = dice_message(model="slow"), make_key(queue)
    calls = [queue.submit(message, index, key=key) for index in range(3)]
    queue.flush()
    calls[0].cancel()
    assert collect(queue)[0][0] == status.CANCELLED
    calls = [queue.submit(dice_message(5, "slow"), index, key=make_key(queue, "other")) for index in range(2)]
    queue.flush()
    for call in calls:
        call.cancel()
    assert {code for code, _, _ in collect(queue).values()} <= {status.CANCELLED, status.OK}
    assert ask(queue, dice_message(5, "slow"), make_key(queue, "other"))[0] == status.OK
    assert engine.statistics("slow", 1)["executions"] == 2
    assert is_clean(engine)


def test_failure_goes_to_all_that_wait_and_is_not_kept(engine, load, queue):
    """A retry of it is run, and may succeed."""
    key = make_key(queue)
    for index in range(3):
        queue.submit(dice_message(), index, key=key)
    assert {code for code, _, _ in collect(queue).values()} == {status.NOT_FOUND}
    assert engine.idempotency_usage()["entries"] == 0
    load(onnx_models.dice(), "dice", max_batch_size=1)
    assert ask(queue, dice_message(), key)[0] == status.OK
    assert ask(queue, b"\xff", make_key(queue, "malformed"))[0] == status.INVALID


def test_caller_with_more_time_gets_an_answer_when_the_first_has_none_left(engine, load, queue):
    """The run of a caller whose deadline passes is begun again for those who have time."""
    load(onnx_models.slow(), "slow", max_batch_size=1, queueing=QueueOptions(refuses_late=False))
    busy = [queue.submit(dice_message(index, "slow"), ("busy", index)) for index in range(4)]
    key = make_key(queue)
    queue.submit(dice_message(9, "slow"), "hasty", b"", 1000, key=key)
    queue.submit(dice_message(9, "slow"), "patient", key=key)
    queue.submit(dice_message(9, "slow"), "limited", b"", 60_000_000, key=key)
    results = collect(queue)
    assert results["hasty"][0] == status.EXPIRED
    assert results["patient"][:2] == results["limited"][:2]
    assert results["patient"][0] == status.OK
    assert engine.statistics("slow", 1)["success"] == len(busy) + 1


def test_late_caller_is_refused_before_it_joins(load, queue):
    """It has no time for an answer that is there already either."""
    load(onnx_models.dice(), "dice", max_batch_size=1)
    queue.submit(dice_message(), "late", b"", 0, key=make_key(queue))
    assert collect(queue)["late"][:2] == (status.EXPIRED, "Deadline Exceeded before the request arrived")


def test_retry_that_the_gateway_leads_to_another_version_gets_the_first_answer(engine, load, queue):
    """Which version a request without one goes to is no part of it."""
    for version in (1, 2):
        load(onnx_models.dice(), "dice", version, max_batch_size=1)
    key = make_key(queue)
    queue.submit(dice_message(), "first", b"1", key=key)
    first = collect(queue)["first"]
    queue.submit(dice_message(), "again", b"2", key=key)
    assert collect(queue)["again"][:2] == first[:2]
    assert engine.statistics("dice", 2)["success"] == 0


def test_answer_is_forgotten_after_its_time(load, tmp_path):
    """The next request is run again, and the memory of all that has passed is free."""
    engine = Engine(workers=1, idempotency_bytes=BOOK_BYTES, idempotency_life_us=1)
    engine.load("dice", 1, onnx_session(tmp_path), max_batch_size=1)
    queue = CompletionQueue(engine)
    first, second = (ask(queue, dice_message(), make_key(queue)) for _ in range(2))
    assert first[1] != second[1]
    usage = engine.idempotency_usage()
    assert (usage["bytes"], usage["entries"], usage["runs"], usage["evictions"]) == (0, 0, 2, 0)
    engine.close()


def onnx_session(folder):
    """The session of a model that gives other numbers at each run."""
    return Session(onnx_models.save(onnx_models.dice(), folder, "dice"))


def test_bytes_are_bounded_and_the_oldest_go_first(engine, load, queue):
    """However many keys come; the latest are there."""
    load(onnx_models.identity(shape=("batch", 1024)), "same", max_batch_size=8)

    def ask_same(index):
        message = encode_request("same", {"input": nonce_rows(index, 1, 1024)})
        code, reply, is_replayed = ask(queue, message, make_key(queue, str(index)))
        assert code == status.OK
        np.testing.assert_array_equal(decode_reply(reply)["output"], nonce_rows(index, 1, 1024))
        return is_replayed

    room = BOOK_BYTES // (4096 + ENTRY_BYTES)
    for index in range(3 * room):
        assert not ask_same(index)
        assert engine.idempotency_usage()["bytes"] <= BOOK_BYTES
    usage = engine.idempotency_usage()
    assert usage["entries"] + usage["evictions"] == 3 * room
    assert usage["bytes"] > BOOK_BYTES // 2
    assert ask_same(3 * room - 1)
    assert not ask_same(0)


def test_message_and_reply_that_are_too_large(engine, load, queue):
    """A message is refused; a reply reaches its caller, and is not kept."""
    load(onnx_models.identity(shape=("batch", BOOK_BYTES // 4)), "same", max_batch_size=8)
    message = encode_request("same", {"input": nonce_rows(1, 1, BOOK_BYTES // 4)})
    code, text, _ = ask(queue, message, make_key(queue))
    assert code == status.EXHAUSTED
    assert f"at most {BOOK_BYTES} may be kept" in text
    load(onnx_models.widener(BOOK_BYTES // 4), "wide", max_batch_size=8)
    for _ in range(2):
        code, reply, _ = ask(
            queue, encode_request("wide", {"input": np.ones((1, 1), np.float32)}), make_key(queue, "w")
        )
        assert code == status.OK
        assert len(reply) > BOOK_BYTES
    usage = engine.idempotency_usage()
    assert (usage["entries"], usage["bytes"], usage["evictions"]) == (0, 0, 2)
    assert is_clean(engine)


def test_callers_that_wait_are_bounded(load, tmp_path):
    """One more than may wait is refused at once."""
    engine = Engine(workers=1, idempotency_bytes=BOOK_BYTES, max_queue_requests=4)
    engine.load("slow", 1, Session(onnx_models.save(onnx_models.slow(), tmp_path, "slow")), max_batch_size=1)
    queue = CompletionQueue(engine)
    for index in range(10):
        queue.submit(dice_message(model="slow"), index, key=make_key(queue))
    codes = [code for code, _, _ in dict(sorted(collect(queue).items())).values()]
    assert codes == [status.OK] * 4 + [status.EXHAUSTED] * 6
    assert is_clean(engine)
    engine.close()


def test_request_of_a_sequence_counts_once(loader, queue):
    """Its answer comes again; its sequence has made one step."""
    loader.load_sum()
    turns = [("a", {"start": True}), ("b", {}), ("b", {}), ("c", {})]
    sums = []
    for key, flags in turns:
        message = encode_addend(7, 1, **flags)
        code, reply, _ = ask(queue, message, make_key(queue, key))
        assert code == status.OK, reply
        sums.append(decode_reply(reply)["output"].tolist())
    assert sums[1] == sums[2]
    assert np.array(sums)[:, 0, 0].tolist() == [1, 2, 2, 3]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("book_bytes", [1, 2000, BOOK_BYTES])
def test_storm_leaves_everybody_answered_and_nothing_held(tmp_path, seed, book_bytes):
    """Random keys, repetitions, conflicts, failures, deadlines and cancellations: each caller its own rows or error.

    With room enough each key is run once, whoever gives up meanwhile; with less nobody gets anything wrong.
    """
    engine = Engine(workers=4, idempotency_bytes=book_bytes)
    session = Session(onnx_models.save(onnx_models.identity(), tmp_path, "same"))
    engine.load("same", 1, session, max_batch_size=8, queue_delay_us=50, instance_count=2)
    queue = CompletionQueue(engine)
    chance = random.Random(seed)
    results, pending, asked = {}, [], {}
    for turn in range(TURNS):
        name = chance.randrange(TURNS // 5)
        is_conflict = chance.random() < 0.05
        model = "nobody" if name % 50 == 7 else "same"
        message = encode_request(model, {"input": nonce_rows(name + 100_000 * is_conflict, 1 + name % 3)})
        timeout_us = 300 if name % 50 == 8 and chance.random() < 0.5 else -1
        asked[turn] = (name, is_conflict)
        pending.append(queue.submit(message, turn, b"", timeout_us, key=make_key(queue, str(name))))
        if chance.random() < 0.2:
            chance.choice(pending[-50:]).cancel()
        if turn % 7 == 6:
            queue.flush()
        if turn % 64 == 63:
            results |= {call.context: (code, payload) for call, code, payload in queue.drain()}
    results |= {context: (code, payload) for context, (code, payload, _) in collect(queue).items()}
    assert sorted(results) == list(range(TURNS))
    for turn, (code, payload) in results.items():
        name, is_conflict = asked[turn]
        if code == status.OK:
            rows = nonce_rows(name + 100_000 * is_conflict, 1 + name % 3)
            np.testing.assert_array_equal(decode_reply(payload)["output"], rows)
            continue
        allowed = {status.CANCELLED, status.INVALID}
        if name % 50 == 7:
            allowed |= {status.NOT_FOUND}
        if name % 50 == 8:
            allowed |= {status.EXPIRED, status.EXHAUSTED}
        if book_bytes < BOOK_BYTES:
            allowed |= {status.EXHAUSTED}
        assert code in allowed, payload
    assert is_clean(engine)
    usage = engine.idempotency_usage()
    assert usage["bytes"] <= book_bytes
    if book_bytes == BOOK_BYTES:
        names = {name for name, _ in asked.values() if name % 50 not in (7, 8)}
        succeeded = engine.statistics("same", 1)["success"]
        assert usage["evictions"] == 0
        assert len(names) - 5 <= succeeded <= len({name for name, _ in asked.values()})
    engine.close()


def test_tensors_in_shared_memory_are_refused(engine, load, queue):
    """What lies there may have changed when the request comes again, and so may who reads the outputs."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    with MemoryObject(bytes(64)) as memory:
        engine.shared_memory.register("region", memory.key, 0, 64)
        request = build_request("same", {"input": nonce_rows(1, 1)}, outputs=["output"])
        place_tensor(request.outputs[0], "region", 16)
        message = request.SerializeToString()
        engine.infer(message)
        assert memory.read(0, 16) == nonce_rows(1, 1).tobytes()
        code, text, _ = ask(queue, message, make_key(queue))
        assert code == status.INVALID
        assert "shared memory" in text
        engine.shared_memory.unregister("region")
