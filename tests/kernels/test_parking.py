"""kernels.parking: requests for models that are not in memory wait until these are, or until it is known why not."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, infer, nonce_rows, refusal_of
from ensemble_graphs import load_chain
from inference_messages import build_request, decode_reply, encode_request

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.parking import DormantModel
from kernels.queue_options import QueueOptions, QueuePolicy
from kernels.session import Session

LONG_S = 60.0


@pytest.fixture
def echo(tmp_path):
    """The file of a model that gives its rows back."""
    return onnx_models.save(onnx_models.identity(), tmp_path, "echo")


def park(engine, name="echo", versions=(1,), labels=None):
    """Make a model dormant, all versions of it."""
    dormant = DormantModel(name)
    changes = {(name, version): dormant for version in versions}
    engine.retire(engine.exchange(changes, {name: labels} if labels else None))


def wake(engine, path, name="echo", version=1, **options):
    """Put the model into the place of the dormant one."""
    engine.load(name, version, Session(path), max_batch_size=8, **options)


def submit(queue, index, *, name="echo", timeout_us=-1, rows=1, **options):
    """One request with rows of its own; returns its call."""
    request = build_request(name, {"input": nonce_rows(index, rows)}, request_id=str(index), **options)
    call = queue.submit(request.SerializeToString(), index, timeout_us=timeout_us)
    queue.flush()
    return call


def check_own_rows(done):
    """Every call has been answered, and with what it sent."""
    for call, code, reply in done:
        assert code == status.OK, reply
        assert np.array_equal(decode_reply(reply)["output"], nonce_rows(call.context, 1))


def test_parked_requests_are_answered_once_their_model_is_loaded(engine, echo):
    """Each gets its own rows, in the order in which they came, and the model is wanted once for all of them."""
    park(engine)
    queue = CompletionQueue(engine)
    for index in range(20):
        submit(queue, index)
    assert engine.take_wanted(LONG_S) == "echo"
    assert engine.take_wanted(0.0) is None
    assert queue.drain() == []
    wake(engine, echo)
    done = await_calls(queue, 20)
    check_own_rows(done)
    assert sorted(call.context for call, _, _ in done) == list(range(20))
    assert engine.statistics("echo", 1)["success"] == 20
    check_own_rows([(submit(queue, 20), *await_calls(queue, 1)[0][1:])])


@pytest.mark.parametrize(("version", "label"), [("", ""), ("2", ""), ("", "stable")])
def test_request_waits_however_it_names_its_version(engine, echo, version, label):
    """By number, by label, or without either for the highest one."""
    park(engine, versions=(1, 2), labels={"stable": 2})
    queue = CompletionQueue(engine)
    submit(queue, 7, version=version or label)
    assert engine.take_wanted(LONG_S) == "echo"
    changes = {("echo", one): engine.prepare("echo", one, Session(echo), max_batch_size=8) for one in (1, 2)}
    engine.retire(engine.exchange(changes))
    check_own_rows(await_calls(queue, 1))
    assert engine.statistics("echo", 2)["success"] == 1


def test_models_are_wanted_in_the_order_in_which_they_were_asked_for(engine):
    """And nobody who waits for one is told of another."""
    for name in ("a", "b", "c"):
        park(engine, name)
    queue = CompletionQueue(engine)
    for name in ("b", "c", "b", "a"):
        submit(queue, 1, name=name)
    assert [engine.take_wanted(0.0) for _ in range(4)] == ["b", "c", "a", None]
    engine.close()
    assert {code for _, code, _ in await_calls(queue, 4)} == {status.UNAVAILABLE}


def test_thread_that_waits_for_a_wanted_model_is_woken(engine):
    """It sleeps until a request comes."""
    park(engine)
    found = []
    waiting = threading.Thread(target=lambda: found.append(engine.take_wanted(LONG_S)))
    waiting.start()
    queue = CompletionQueue(engine)
    submit(queue, 1)
    waiting.join(LONG_S)
    assert found == ["echo"]


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ("the file is broken", status.UNAVAILABLE, "model 'echo' is unavailable: the file is broken"),
        (None, status.NOT_FOUND, "Request for unknown model: 'echo' is not found"),
    ],
)
def test_parked_requests_hear_why_their_model_is_not_loaded(engine, change, code, text):
    """The reason of the change that was made instead, as those that come later do."""
    park(engine)
    queue = CompletionQueue(engine)
    for index in range(3):
        submit(queue, index)
    engine.retire(engine.exchange({("echo", 1): change}))
    assert [(given, reply) for _, given, reply in await_calls(queue, 3)] == [(code, text)] * 3
    assert refusal_of(engine, encode_request("echo", {"input": nonce_rows(1, 1)})) == (code, text)


def test_parked_request_that_does_not_fit_its_model_is_refused_then(engine, echo):
    """What a model takes is known once it is loaded; the others are answered."""
    park(engine)
    queue = CompletionQueue(engine)
    queue.submit(encode_request("echo", {"wrong": nonce_rows(0, 1)}), "wrong")
    submit(queue, 1)
    wake(engine, echo)
    outcome = {call.context: (code, reply) for call, code, reply in await_calls(queue, 2)}
    assert outcome["wrong"][0] == status.INVALID
    assert outcome[1][0] == status.OK


def test_parked_request_expires_at_its_deadline(engine, echo):
    """Nobody loads; one without a deadline goes on waiting."""
    park(engine)
    queue = CompletionQueue(engine)
    submit(queue, 0)
    submit(queue, 1, timeout_us=200_000)
    submit(queue, 2, timeout_us=50_000)
    begun = time.monotonic()
    done = await_calls(queue, 1) + await_calls(queue, 1)
    assert time.monotonic() - begun >= 0.14
    assert [call.context for call, _, _ in done] == [2, 1]
    expired = (status.EXPIRED, "Deadline Exceeded while the model was being loaded")
    assert [tuple(rest) for _, *rest in done] == [expired] * 2
    wake(engine, echo)
    check_own_rows(await_calls(queue, 1))


def test_request_whose_deadline_has_passed_wakes_no_model(engine):
    """It is refused where it stands."""
    park(engine)
    queue = CompletionQueue(engine)
    submit(queue, 1, timeout_us=0)
    [(_, code, _)] = await_calls(queue, 1)
    assert code == status.EXPIRED
    assert engine.take_wanted(0.0) is None


def test_cancelled_parked_request_is_settled_at_once(engine, echo):
    """From the front, the middle and the back; the others are answered."""
    park(engine)
    queue = CompletionQueue(engine)
    calls = [submit(queue, index) for index in range(6)]
    for index in (0, 3, 5):
        calls[index].cancel()
    cancelled = await_calls(queue, 3)
    assert {(call.context, code) for call, code, _ in cancelled} == {(index, status.CANCELLED) for index in (0, 3, 5)}
    wake(engine, echo)
    done = await_calls(queue, 3)
    check_own_rows(done)
    assert [call.context for call, _, _ in done] == [1, 2, 4]


def test_request_that_is_cancelled_on_its_way_to_the_queue_does_not_run(engine, tmp_path):
    """Numbers in typed contents are copied on the way, one request after the other, so that there is time for it."""
    path = onnx_models.save(onnx_models.slow(20_000), tmp_path, "slow")
    park(engine, "slow")
    queue, rows = CompletionQueue(engine), 16384
    request = build_request("slow", {"input": nonce_rows(0, rows)})
    request.inputs[0].contents.fp32_contents.extend(nonce_rows(0, rows).ravel().tolist())
    request.ClearField("raw_input_contents")
    message = request.SerializeToString()
    calls = [queue.submit(message, index) for index in range(200)]
    queue.flush()
    made = engine.prepare("slow", 1, Session(path), max_batch_size=rows)
    with ThreadPoolExecutor(1) as threads:
        replaced = engine.exchange({("slow", 1): made})
        retiring = threads.submit(engine.retire, replaced)
        while engine.statistics("slow", 1)["running"] == 0:
            assert not retiring.done() or engine.statistics("slow", 1)["queued"] > 0
        for call in calls:
            call.cancel()
        retiring.result()
    done = await_calls(queue, len(calls))
    assert [code for _, code, _ in done].count(status.CANCELLED) >= len(calls) - 2
    counts = engine.statistics("slow", 1)
    assert counts["executions"] <= 2
    assert (counts["queued"], engine.pending_bytes) == (0, 0)


def test_request_that_is_cancelled_on_its_way_to_an_ensemble_is_not_answered(engine, tmp_path):
    """Nor are its steps run on. A batch that has begun may end before it is cancelled, on a busy machine."""
    park(engine, "chain")
    engine.load("slow", 1, Session(onnx_models.save(onnx_models.slow(2_000_000), tmp_path, "slow")), max_batch_size=8)
    queue = CompletionQueue(engine)
    calls = [submit(queue, index, name="chain") for index in range(200)]
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(load_chain, engine, "slow")
        while engine.versions()["chain", 1] is not None:
            assert not loading.done() or engine.versions()["chain", 1] is None
        for call in reversed(calls):
            call.cancel()
        loading.result()
    codes = [code for _, code, _ in await_calls(queue, len(calls))]
    assert set(codes) <= {status.OK, status.CANCELLED}
    assert codes.count(status.OK) <= 8


def test_time_that_a_queue_gives_begins_once_the_model_is_loaded(engine, echo):
    """Else a load that takes longer would fail its first requests, each time that a model comes into memory."""
    park(engine)
    queue = CompletionQueue(engine)
    submit(queue, 1)
    time.sleep(0.2)
    wake(engine, echo, queueing=QueueOptions(levels=(QueuePolicy(timeout_us=150_000),)))
    check_own_rows(await_calls(queue, 1))


def test_model_that_nobody_waits_for_any_more_is_not_wanted(engine):
    """Until somebody asks again."""
    park(engine)
    queue = CompletionQueue(engine)
    submit(queue, 1).cancel()
    assert engine.take_wanted(0.0) is None
    submit(queue, 2)
    assert engine.take_wanted(0.0) == "echo"


def test_parked_requests_are_bounded_by_number(tmp_path, echo):
    """As a queue is: the next one is refused, and has cost the others nothing."""
    engine = Engine(workers=1, max_queue_requests=2)
    park(engine)
    queue = CompletionQueue(engine)
    for index in range(3):
        submit(queue, index)
    [(call, code, text)] = await_calls(queue, 1)
    assert (call.context, code) == (2, status.EXHAUSTED)
    assert text == "2 requests wait for model 'echo' to be loaded; no more may"
    wake(engine, echo)
    check_own_rows(await_calls(queue, 2))
    engine.close()


def test_parked_requests_are_bounded_by_bytes_and_give_them_back(echo):
    """Those of all models together, on every way out."""
    size = len(build_request("echo", {"input": nonce_rows(0, 1)}, request_id="0").SerializeToString())
    engine = Engine(workers=1, max_pending_bytes=2 * size)
    queue = CompletionQueue(engine)
    for end in ("cancel", "wake"):
        park(engine)
        calls = [submit(queue, index) for index in range(3)]
        [(call, code, text)] = await_calls(queue, 1)
        assert (call.context, code) == (2, status.EXHAUSTED)
        assert "the server holds" in text
        if end == "cancel":
            for one in calls[:2]:
                one.cancel()
            assert {code for _, code, _ in await_calls(queue, 2)} == {status.CANCELLED}
        else:
            wake(engine, echo)
            check_own_rows(await_calls(queue, 2))
    engine.close()


def test_end_of_parking_refuses_what_waits_and_what_comes(engine):
    """And whoever waits for a wanted model is told that there will be none."""
    park(engine)
    park(engine, "other")
    queue = CompletionQueue(engine)
    for index, name in enumerate(("echo", "other", "echo")):
        submit(queue, index, name=name)
    assert engine.take_wanted(0.0) == "echo"
    engine.end_parking()
    submit(queue, 3)
    done = await_calls(queue, 4)
    assert {(code, text) for _, code, text in done} == {(status.UNAVAILABLE, "the server is stopping")}
    begun = time.monotonic()
    assert engine.take_wanted(LONG_S) is None
    assert time.monotonic() - begun < LONG_S / 2


def test_use_of_models_is_told_by_their_latest_request(engine, echo):
    """Being put in place counts as one; what waited for that does not make a model older."""
    park(engine)
    queue = CompletionQueue(engine)
    submit(queue, 1)
    assert engine.read_use() == {}
    before_ns = time.monotonic_ns()
    wake(engine, echo)
    await_calls(queue, 1)
    wake(engine, echo, "other")
    use = engine.read_use()
    assert before_ns < use["echo"][0] < use["other"][0] < time.monotonic_ns()
    infer(engine, "echo", {"input": nonce_rows(2, 1)})
    assert engine.read_use()["echo"][0] > use["other"][0]


def test_use_of_a_model_that_runs_is_told(engine, load):
    """Until its last request is answered."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    queue = CompletionQueue(engine)
    queue.submit(encode_request("slow", {"input": nonce_rows(1, 1)}), 1)
    queue.flush()
    assert engine.read_use()["slow"][1]
    await_calls(queue, 1)
    until = time.monotonic() + LONG_S
    while engine.read_use()["slow"][1]:
        assert time.monotonic() < until


def test_models_that_come_and_go_under_requests_lose_nobody(echo):
    """Loaded and put to rest in turns while requests come, expire and are cancelled: each gets its rows or its end.

    Who would expire in the queue may be refused instead, as coming too late.
    """
    engine, going = Engine(workers=2), threading.Event()
    names = ("a", "b", "c")
    for name in names:
        park(engine, name)

    def turn() -> None:
        generator = random.Random(5)
        while not going.is_set():
            name = engine.take_wanted(0.01)
            if name is not None:
                wake(engine, echo, name)
            park(engine, generator.choice(names))

    thread = threading.Thread(target=turn)
    thread.start()
    queue, generator, done, open_calls = CompletionQueue(engine), random.Random(3), [], []
    count = 600
    for index in range(count):
        timeout_us = generator.choice((-1, -1, 2_000, 500))
        open_calls.append(submit(queue, index, name=generator.choice(names), timeout_us=timeout_us))
        if generator.random() < 0.2:
            generator.choice(open_calls).cancel()
        done += queue.drain()
    done += await_calls(queue, count - len(done))
    going.set()
    thread.join(LONG_S)
    assert sorted(call.context for call, _, _ in done) == list(range(count))
    assert {code for _, code, _ in done} <= {status.OK, status.EXPIRED, status.EXHAUSTED, status.CANCELLED}
    answered = [one for one in done if one[1] == status.OK]
    assert len(answered) > count / 4
    check_own_rows(answered)
    engine.close()
