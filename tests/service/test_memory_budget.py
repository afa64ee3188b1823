"""service.memory_budget: what models take is measured, and kept within its bound with real models."""

import numpy as np
import pytest
from lazy_rig import await_true, make_rig
from lifecycle_rig import infer
from onnx import TensorProto, helper, numpy_helper

from service.allocator import AllocatorError, read_allocated_bytes
from service.memory_budget import MemoryBudget
from tests.onnx_models import IR_VERSION, OPSET, save

MIB = 2**20
WEIGHTS_BYTES = 8 * MIB


def heavy(number):
    """FP32 ``input`` [batch, 4], places in a table of 8 MiB, to what stands there: the place and `number` more."""
    table = np.arange(WEIGHTS_BYTES // 4, dtype=np.float32) + number
    values = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4]),
    ]
    nodes = [
        helper.make_node("Cast", ["input"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["output"]),
    ]
    weights = [numpy_helper.from_array(table, "table")]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def test_allocated_bytes_follow_what_is_allocated():
    """Both small pieces and what is mapped for itself, up and down."""
    before = read_allocated_bytes()
    small, large = [np.empty(1024, np.uint8) for _ in range(2048)], np.empty(64 * MIB, np.uint8)
    assert read_allocated_bytes() - before == pytest.approx(66 * MIB, rel=0.1)
    del small, large
    assert read_allocated_bytes() - before < 1 * MIB


def test_other_allocators_are_refused(monkeypatch):
    """Glibc's counters stay at zero then, and no model would ever go."""
    monkeypatch.setattr("service.allocator.ctypes.CDLL", lambda name: object())
    with pytest.raises(AllocatorError, match="mallinfo2"):
        read_allocated_bytes()


def test_models_stay_within_the_budget(tmp_path, engine, repository):
    """Each that is asked for is answered; what they take together is no more than the bound."""
    names = [f"model{number}" for number in range(10)]
    for number, name in enumerate(names):
        save(heavy(number), tmp_path, name)
    budget = 3 * WEIGHTS_BYTES + 4 * MIB
    row = np.arange(4, dtype=np.float32).reshape(1, 4)
    with make_rig(tmp_path, engine, repository, budget=budget, measure=read_allocated_bytes) as rig:
        for _ in range(3):
            for number, name in enumerate(names):
                assert infer(engine, name, row).tolist() == [number, number + 1, number + 2, number + 3]
                # A moment after the answer: only then is it known what the model has really taken.
                await_true(lambda: rig.budget.read_used_bytes() <= budget)
        assert 1 <= len(rig.in_memory) <= 3
        # Of what was loaded last, one after the other.
        assert rig.in_memory <= set(names[-3:])
        assert rig.budget.evictions >= 3 * len(names) - 3


def test_room_is_made_for_what_is_to_be_loaded(tmp_path, engine, repository):
    """By the size of its file, before it is loaded: the bound holds meanwhile too."""
    for number in range(3):
        save(heavy(number), tmp_path, f"model{number}")
    row = np.zeros((1, 4), np.float32)
    with make_rig(tmp_path, engine, repository, measure=read_allocated_bytes) as rig:
        for number in range(3):
            infer(engine, f"model{number}", row)
        assert rig.in_memory == {"model0", "model1", "model2"}
        size = rig.lifecycle.measure_files("model0")
        assert size == pytest.approx(WEIGHTS_BYTES, rel=0.01)
        budget = MemoryBudget(engine, rig.lifecycle, budget_bytes=0)
        budget.make_room(size)
        assert len(rig.in_memory) == 3
        # As it would have been made before the first model.
        budget._before -= rig.budget.read_used_bytes()
        budget.budget_bytes = rig.budget.read_used_bytes() + MIB
        budget.make_room(size)
        assert rig.in_memory == {"model1", "model2"}
        assert rig.lifecycle.measure_files("nobody") == 0
