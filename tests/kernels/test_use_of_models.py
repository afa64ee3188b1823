"""Engine.read_use, and dormant models among ensembles, sequences and cached replies."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
from engine_calls import await_calls, infer, nonce_rows, refusal_of
from ensemble_graphs import load_chain, load_parts
from inference_messages import build_request, decode_reply, encode_request
from sequence_calls import add, encode_addend

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine
from kernels.parking import DormantModel
from kernels.session import Session

LONG_S = 60.0


def test_steps_are_in_use_as_long_as_an_ensemble_runs_on_them(engine, load):
    """Without a request; the ensemble itself is not."""
    load_parts(load)
    load_chain(engine, "same")
    use = engine.read_use()
    assert (use["same"][1], use["sums"][1], use["chain"][1]) == (True, False, False)
    engine.unload("chain", 1)
    assert not engine.read_use()["same"][1]


def test_request_for_an_ensemble_is_use_of_it_and_of_its_steps(engine, load):
    """And of nothing else."""
    load_parts(load)
    load_chain(engine, "same")
    before = engine.read_use()
    infer(engine, "chain", {"input": nonce_rows(1, 1)})
    after = engine.read_use()
    assert after["chain"][0] > before["chain"][0]
    assert after["same"][0] > before["same"][0]
    assert after["sums"][0] == before["sums"][0]


def test_model_with_a_sequence_is_in_use_until_it_ends(engine, loader):
    """Also while it has no request."""
    loader.load_sum()
    assert not engine.read_use()["sum"][1]
    add(engine, 1, 1, start=True)
    assert engine.read_use()["sum"][1]
    add(engine, 1, 1, end=True)
    engine.drain(LONG_S)
    assert not engine.read_use()["sum"][1]


def test_answer_from_the_cache_is_use_of_its_model(tmp_path):
    """It would leave memory, and its replies with it, for a model that is asked for less."""
    engine = Engine(response_cache_bytes=1 << 20)
    path = onnx_models.save(onnx_models.identity(), tmp_path, "same")
    engine.load("same", 1, Session(path), max_batch_size=8, cache_replies=True)
    infer(engine, "same", {"input": nonce_rows(1, 1)})
    before_ns = engine.read_use()["same"][0]
    infer(engine, "same", {"input": nonce_rows(1, 1)})
    assert engine.statistics("same", 1)["cache_hits"] == 1
    assert engine.read_use()["same"][0] > before_ns
    engine.close()


def test_ensemble_of_a_dormant_step_says_so(engine, load):
    """It runs once the step is there."""
    load_parts(load)
    engine.retire(engine.exchange({("same", 1): DormantModel("same")}))
    load_chain(engine, "same")
    fault = "its step 'same' is unavailable: it is not in memory"
    assert engine.ensembles()["chain", 1] == fault
    code, text = refusal_of(engine, encode_request("chain", {"input": nonce_rows(1, 1)}))
    assert (code, text) == (status.UNAVAILABLE, f"model 'chain' is unavailable: {fault}")
    load(onnx_models.identity(), "same", max_batch_size=8)
    assert np.array_equal(infer(engine, "chain", {"input": nonce_rows(1, 1)})["output"], nonce_rows(1, 1))


def test_parked_requests_for_an_ensemble_run_its_steps_once_it_is_there(engine, load):
    """Each gets its own rows."""
    load_parts(load)
    engine.exchange({("chain", 1): DormantModel("chain")})
    queue = CompletionQueue(engine)
    for index in range(20):
        queue.submit(build_request("chain", {"input": nonce_rows(index, 1)}).SerializeToString(), index)
    queue.flush()
    assert engine.take_wanted(LONG_S) == "chain"
    load_chain(engine, "same", "same")
    done = await_calls(queue, 20)
    assert sorted(call.context for call, _, _ in done) == list(range(20))
    for call, code, reply in done:
        assert code == status.OK, reply
        assert np.array_equal(decode_reply(reply)["output"], nonce_rows(call.context, 1))


def test_sequence_of_a_model_that_was_put_to_rest_goes_on(engine, loader):
    """New ones wait for the next load of it."""
    loader.load_sum()
    add(engine, 1, 1, start=True)
    replaced = engine.exchange({("sum", 1): DormantModel("sum")})
    queue = CompletionQueue(engine)
    with ThreadPoolExecutor(1) as threads:
        retiring = threads.submit(engine.retire, replaced)
        assert add(engine, 1, 1) == [[2, -2]]
        queue.submit(encode_addend(2, 7, start=True, end=True), 2)
        queue.flush()
        assert engine.take_wanted(LONG_S) == "sum"
        assert add(engine, 1, 1, end=True) == [[3, -3]]
        retiring.result()
    loader.load_sum()
    [(_, code, reply)] = await_calls(queue, 1)
    assert code == status.OK, reply
    assert decode_reply(reply)["output"].tolist() == [[7, -7]]
