"""kernels.version_sequences and engine: sequences of versions that come and go."""

import select
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import refusal_of
from inference_messages import decode_reply
from sequence_calls import SHORT_US, SUM_STATE, SequenceLoader, add, encode_addend

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine


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
        assert refusal_of(engine, encode_addend(2, 1, start=True)) == (
            status.NOT_FOUND,
            "Request for unknown model: 'sum' is not found",
        )
        assert refusal_of(engine, encode_addend(1, 1, version="2"))[0] == status.NOT_FOUND
        assert add(engine, 1, 1, end=True, version=version) == [[2, -2]]
        retiring.result()
    assert refusal_of(engine, encode_addend(1, 1)) == (
        status.NOT_FOUND,
        "Request for unknown model: 'sum' is not found",
    )


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
    assert refusal_of(engine, encode_addend(1, 1)) == (
        status.NOT_FOUND,
        "Request for unknown model: 'sum' is not found",
    )
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


def test_statistics_count_sequences_of_versions_that_keep_some(engine, load, loader):
    """Those under way; of other versions there is no number."""
    loader.load_sum()
    load(onnx_models.identity(), "same", max_batch_size=4)
    add(engine, 1, 1, start=True)
    add(engine, 2, 1, start=True)
    add(engine, 3, 1, start=True, end=True)
    assert engine.read_statistics("sum", 1).sequences == engine.statistics("sum", 1)["sequences"] == 2
    assert engine.read_statistics("same", 1).sequences is None
