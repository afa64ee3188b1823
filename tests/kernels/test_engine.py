"""kernels.engine: finds the version that a request names, and loads, swaps and unloads without losing anybody."""

import gc
import select
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, nonce_rows, refusal_of
from inference_messages import decode_reply, encode_request
from ways import every_way

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.session import Session

VERSION_REFUSED = "failed to get model version from specified version string"


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x7f", b"\x0a\x02\xff\xfe", bytes(range(256)), b"\x0b" * 50])
def test_malformed_message_is_refused(engine, message):
    """Bytes that are no ModelInferRequest."""
    code, text = refusal_of(engine, message)
    assert code == status.INVALID
    assert "no valid ModelInferRequest" in text


def test_empty_message_lacks_its_model(engine):
    """An empty message is valid protobuf and names no model."""
    assert refusal_of(engine, b"") == (status.INVALID, "model_name is missing")


def test_field_of_wrong_wire_type_counts_as_missing(engine):
    """A model_name sent as a number is an unknown field to protobuf, so the name is missing."""
    assert refusal_of(engine, b"\x08\x05") == (status.INVALID, "model_name is missing")


@pytest.mark.parametrize(
    ("model", "version", "code", "text"),
    [
        ("nobody", "", status.NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
        ("nobody", "1", status.NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
        ("tiny", "3", status.NOT_FOUND, "Request for unknown model: 'tiny' version 3 is not found"),
        ("tiny", "one", status.NOT_FOUND, f"{VERSION_REFUSED} 'one': model 'tiny' has no such label"),
        ("nobody", "one", status.NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
        ("tiny", "0", status.INVALID, f"{VERSION_REFUSED} '0': expected a positive number or a label"),
        ("tiny", "-1", status.INVALID, f"{VERSION_REFUSED} '-1': expected a positive number or a label"),
        ("tiny", "9" * 40, status.INVALID, f"{VERSION_REFUSED} '{'9' * 40}': expected a positive number or a label"),
        ("tiny", "a" * 65, status.INVALID, f"{VERSION_REFUSED} '{'a' * 65}': expected a positive number or a label"),
    ],
)
def test_unknown_model_or_version_is_refused(engine, load, model, version, code, text):
    """What does not exist is NOT_FOUND, what cannot exist is INVALID."""
    load(onnx_models.tiny())
    message = encode_request(model, {"input": np.zeros((1, 16), np.float32)}, version=version)
    assert refusal_of(engine, message) == (code, text)


def test_version_is_that_of_message_then_hint_then_highest(engine, load):
    """The message's own version wins over the gateway's hint, and the highest number serves the rest."""
    for version in (1, 2, 10):
        load(onnx_models.tiny(seed=version), "tiny", version, max_batch_size=4)
    rows = {"input": np.ones((1, 16), np.float32)}
    by_version = {
        version: infer(engine, "tiny", rows, version=str(version))["output"].tolist() for version in (1, 2, 10)
    }
    assert len({str(output) for output in by_version.values()}) == 3
    assert infer(engine, "tiny", rows)["output"].tolist() == by_version[10]
    assert infer(engine, "tiny", rows, version_hint=b"2")["output"].tolist() == by_version[2]
    assert infer(engine, "tiny", rows, version="1", version_hint=b"2")["output"].tolist() == by_version[1]


def test_unavailable_version_says_why_and_others_serve(engine, load):
    """A reason reaches the caller; the default goes to the highest version that serves."""
    load(onnx_models.tiny(), "tiny", 1, max_batch_size=4)
    engine.set_unavailable("tiny", 2, "its file is broken")
    message = encode_request("tiny", {"input": np.ones((1, 16), np.float32)}, version="2")
    code, text = refusal_of(engine, message)
    assert (code, text) == (status.UNAVAILABLE, "model 'tiny' version 2 is unavailable: its file is broken")
    assert infer(engine, "tiny", {"input": np.ones((1, 16), np.float32)})["output"].shape == (1, 4)


@every_way
def test_swap_under_load_loses_nobody(engine, load):
    """While versions of one name are swapped, unloaded and loaded, every request of another caller is answered."""
    for version in (1, 2):
        load(onnx_models.identity(), "same", version, max_batch_size=16, queue_delay_us=100)
    stop = threading.Event()
    answered = []

    def call(caller):
        turn = 0
        while not stop.is_set():
            rows = nonce_rows(caller * 4096 + turn, 1 + turn % 3)
            np.testing.assert_array_equal(infer(engine, "same", {"input": rows})["output"], rows)
            turn += 1
        answered.append(turn)

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(call, caller) for caller in range(4)]
        for turn in range(40):
            load(onnx_models.identity(), "same", 1 + turn % 2, max_batch_size=16)
            if turn % 10 == 5:
                engine.unload("same", 2)
                load(onnx_models.identity(), "same", 2, max_batch_size=16)
        stop.set()
        for caller in callers:
            caller.result()
    assert sum(answered) > 40


@every_way
def test_unload_ends_serving_and_finishes_what_was_admitted(engine, load, way):
    """A request that was admitted is answered although its model is unloaded meanwhile."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    callers = way.capacity + 3
    with ThreadPoolExecutor(callers) as threads:
        running = [threads.submit(engine.infer, message) for _ in range(callers)]
        while engine.statistics("slow", 1)["queued"] == 0:
            pass
        engine.unload("slow", 1)
        outcomes = [one.exception() for one in running]
    assert any(outcome is None for outcome in outcomes)
    assert {outcome.code for outcome in outcomes if outcome is not None} <= {status.NOT_FOUND}
    assert refusal_of(engine, message) == (status.NOT_FOUND, "Request for unknown model: 'slow' is not found")


@every_way
def test_drain_waits_for_what_runs(engine, load, way):
    """Drain reports whether everything was settled in time."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    callers = way.capacity + 1
    with ThreadPoolExecutor(callers) as threads:
        running = [threads.submit(engine.infer, message) for _ in range(callers)]
        while engine.statistics("slow", 1)["queued"] == 0:
            pass
        assert not engine.drain(0.0)
        assert engine.drain(60.0)
        assert all(one.result() for one in running)


def test_quick_model_does_not_wait_behind_a_slow_one(tmp_path):
    """Two models that become ready at the same moment run side by side, also when one worker is idle just then."""
    engine = Engine(workers=4)
    engine.load("slow", 1, Session(onnx_models.save(onnx_models.slow(), tmp_path, "slow")), max_batch_size=1)
    engine.load("quick", 1, Session(onnx_models.save(onnx_models.identity(), tmp_path, "quick")), max_batch_size=1)
    queue = CompletionQueue(engine)
    row = {"input": np.zeros((1, 4), np.float32)}
    for _ in range(5):
        queue.submit(encode_request("slow", row), "slow")
        queue.submit(encode_request("quick", row), "quick")
        queue.flush()
        order = []
        while queue.in_flight:
            select.select([queue.fileno()], [], [], 60)
            order += [call.context for call, _, _ in queue.drain()]
        assert order == ["quick", "slow"]
    engine.close()


def test_statistics_answer_while_another_model_unloads(engine, load):
    """Waiting for a slow run to end holds nobody up who asks for something else."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    load(onnx_models.identity(), "other", max_batch_size=1)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(engine.infer, encode_request("slow", {"input": np.zeros((1, 4), np.float32)}))
        while not engine.statistics("slow", 1)["running"]:
            pass
        unloading = threads.submit(engine.unload, "slow", 1)
        while ("slow", 1) in engine.versions():
            pass
        assert engine.statistics("other", 1)["success"] == 0
        assert not unloading.done()
        assert running.result()


def test_deadline_beyond_the_clock_is_none(engine, load):
    """A client that says "for ever" in microseconds is not taken to be late."""
    load(onnx_models.identity(), "same", max_batch_size=4)
    for timeout_us in (2**63 - 1, 2**62, 2**60):
        assert engine.infer(encode_request("same", {"input": nonce_rows(1, 1)}), timeout_us=timeout_us)


def test_forgotten_engine_is_closed_by_the_collector(tmp_path):
    """An engine that dies in a reference cycle ends its threads."""
    before = thread_count()
    for _ in range(3):
        engine = Engine()
        engine.load("tiny", 1, Session(onnx_models.save(onnx_models.tiny(), tmp_path)))
        cycle = [engine]
        cycle.append(cycle)
        del engine, cycle
    gc.collect()
    assert thread_count() <= before


def test_hundreds_of_idle_models_add_no_threads(engine, load):
    """A loaded model that waits for nothing costs no thread."""
    load(onnx_models.tiny(), "first", max_batch_size=4)
    infer(engine, "first", {"input": np.ones((1, 16), np.float32)})
    before = thread_count()
    for index in range(100):
        load(onnx_models.tiny(), f"model{index}", max_batch_size=4, instance_count=2)
    assert thread_count() == before


def thread_count():
    """Threads of this process, those without Python among them."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


@pytest.mark.parametrize(
    "options", [{"max_batch_size": -1}, {"instance_count": 0}, {"queue_delay_us": -5}, {"version": 0}]
)
def test_load_with_number_out_of_range_is_refused(load, options):
    """Wrong numbers are refused by the control plane."""
    with pytest.raises(ValueError, match="must be at least"):
        load(onnx_models.tiny(), **options)


def test_load_of_fixed_first_dimension_with_batching_is_refused(load):
    """A model whose first dimension is fixed has no batch."""
    with pytest.raises(ValueError, match="open first dimension"):
        load(onnx_models.identity(shape=(1, 4)), max_batch_size=4)


def test_closed_engine_refuses_to_load(tmp_path):
    """After close nothing is served or loaded, and close may be called again."""
    engine = Engine()
    session = Session(onnx_models.save(onnx_models.tiny(), tmp_path))
    engine.load("tiny", 1, session)
    engine.close()
    engine.close()
    assert refusal_of(engine, encode_request("tiny", {}))[0] == status.NOT_FOUND
    with pytest.raises(ValueError, match="closed"):
        engine.load("tiny", 1, session)


def test_label_leads_to_its_version_until_it_moves(engine, load):
    """In the message or in the gateway's hint; a version that cannot serve says so under its label too."""
    for version in (1, 2):
        load(onnx_models.tiny(seed=version), "tiny", version, max_batch_size=4)
    rows = {"input": np.ones((1, 16), np.float32)}
    first, second = (infer(engine, "tiny", rows, version=version)["output"].tolist() for version in ("1", "2"))
    engine.exchange({("tiny", 3): "it is broken"}, {"tiny": {"stable": 1, "_next-1.0": 3}})
    assert infer(engine, "tiny", rows, version="stable")["output"].tolist() == first
    assert infer(engine, "tiny", rows, version_hint=b"stable")["output"].tolist() == first
    message = encode_request("tiny", rows, version="_next-1.0")
    assert refusal_of(engine, message) == (
        status.UNAVAILABLE,
        "model 'tiny' version _next-1.0 is unavailable: it is broken",
    )
    engine.exchange({}, {"tiny": {"stable": 2}})
    assert infer(engine, "tiny", rows, version="stable")["output"].tolist() == second
    assert refusal_of(engine, message)[0] == status.NOT_FOUND


def test_labels_of_models_are_apart(engine, load):
    """A name and a label never run into each other."""
    for name in ("ab", "a"):
        load(onnx_models.identity(), name, 1, max_batch_size=4)
    engine.exchange({}, {"ab": {"c": 1}, "a": {"bc": 1}})
    rows = {"input": nonce_rows(1, 1)}
    for name, label in (("ab", "c"), ("a", "bc")):
        assert infer(engine, name, rows, version=label)["output"].shape == (1, 4)
    for name, label in (("ab", "bc"), ("a", "c"), ("a", "b"), ("a", "bcd")):
        assert refusal_of(engine, encode_request(name, rows, version=label))[0] == status.NOT_FOUND


def test_exchange_with_label_of_what_is_not_there_changes_nothing(engine, load):
    """A label never leads nowhere, neither when it is set nor when its version goes."""
    load(onnx_models.identity(), "same", 1, max_batch_size=4)
    engine.exchange({}, {"same": {"stable": 1}})
    for changes, labels in (({}, {"same": {"next": 2}}), ({("same", 1): None, ("same", 2): "new"}, None)):
        with pytest.raises(ValueError, match="which is not there"):
            engine.exchange(changes, labels)
    assert engine.versions() == {("same", 1): None}
    assert infer(engine, "same", {"input": nonce_rows(1, 1)}, version="stable")["output"].shape == (1, 4)
    engine.unload("same", 1)
    load(onnx_models.identity(), "same", 1, max_batch_size=4)
    message = encode_request("same", {"input": nonce_rows(1, 1)}, version="stable")
    refusal = f"{VERSION_REFUSED} 'stable': model 'same' has no such label"
    assert refusal_of(engine, message) == (status.NOT_FOUND, refusal)


def test_prepared_version_runs_for_whoever_holds_it_and_for_nobody_else(engine, tmp_path):
    """As a warm-up does; what it counted is forgotten when it is put in place."""
    session = Session(onnx_models.save(onnx_models.identity(), tmp_path, "same"))
    made = engine.prepare("same", 1, session, max_batch_size=4)
    message = encode_request("same", {"input": nonce_rows(7, 2)})
    assert refusal_of(engine, message) == (status.NOT_FOUND, "Request for unknown model: 'same' is not found")
    for whatever in (message, encode_request("nobody", {"input": nonce_rows(7, 2)}, version="9")):
        np.testing.assert_array_equal(decode_reply(engine.infer(whatever, target=made))["output"], nonce_rows(7, 2))
    assert refusal_of(engine, encode_request("same", {}), target=made)[0] == status.INVALID
    assert refusal_of(engine, b"\xff", target=made)[0] == status.INVALID
    assert engine.exchange({("same", 1): made}) == []
    assert engine.statistics("same", 1)["success"] == 0
    assert engine.infer(message)
    assert engine.statistics("same", 1)["success"] == 1


def test_prepared_version_that_comes_to_nothing_is_freed(engine, tmp_path):
    """By retire, once or twice, or by closing the engine."""
    session = Session(onnx_models.save(onnx_models.identity(), tmp_path, "same"))
    made = [engine.prepare("same", version, session, max_batch_size=4) for version in (1, 2)]
    engine.infer(encode_request("same", {"input": nonce_rows(1, 1)}), target=made[0])
    engine.retire(made[:1])
    engine.retire(made[:1])
    engine.close()


def test_exchange_puts_everything_in_place_at_one_moment(engine, tmp_path):
    """A caller without a version gets the old pair or the new one, whatever comes and goes."""
    sessions = {
        seed: Session(onnx_models.save(onnx_models.tiny(seed=seed), tmp_path, f"tiny{seed}")) for seed in (1, 2, 3, 4)
    }
    rows = {"input": np.ones((1, 16), np.float32)}

    def prepare(version, seed):
        return engine.prepare("tiny", version, sessions[seed], max_batch_size=4)

    engine.exchange({("tiny", 1): prepare(1, 1), ("tiny", 2): prepare(2, 2)}, {"tiny": {"live": 1}})
    stop, seen = threading.Event(), set()

    def call():
        while not stop.is_set():
            for version in ("", "live"):
                seen.add((version, tuple(infer(engine, "tiny", rows, version=version)["output"].ravel())))

    with ThreadPoolExecutor(3) as threads:
        callers = [threads.submit(call) for _ in range(3)]
        for turn in range(30):
            first, second = ((1, 2), (3, 4))[turn % 2]
            low = 1 + 2 * (turn % 2)
            changes = {("tiny", low): prepare(low, first), ("tiny", low + 1): prepare(low + 1, second)}
            gone = {key: None for key in engine.versions() if key not in changes}
            engine.retire(engine.exchange(changes | gone, {"tiny": {"live": low}}))
        stop.set()
        for caller in callers:
            caller.result()
    assert {version for version, _ in seen} == {"", "live"}
    assert len(seen) <= 4


def test_drain_waits_for_what_was_replaced(engine, load, tmp_path):
    """A version that nobody can reach any more still has callers."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    message = encode_request("slow", {"input": np.zeros((1, 4), np.float32)})
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(engine.infer, message)
        while engine.statistics("slow", 1)["running"] == 0:
            pass
        replaced = engine.exchange({("slow", 1): "unloaded"})
        assert not engine.drain(0.0)
        assert engine.drain(60.0)
        assert running.result()
        engine.retire(replaced)
