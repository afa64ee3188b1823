"""kernels.shared_memory: parameters of requests, whatever they say."""

import numpy as np
import onnx_models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_messages import build_request
from memory_objects import MemoryObject, place_tensor
from wire_messages import SEARCH

from kernels import status
from kernels.engine import Engine, InferError
from kernels.session import Session
from service.pb.open_inference_pb2 import ModelInferResponse

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
SIZE = ROWS.nbytes


@st.composite
def parameters(draw):
    """Parameters that look like those of a place or of classes, of any kind and value."""
    numbers = st.sampled_from([-(2**63), -1, 0, 1, 31, 32, 33, 224, 225, 256, 2**63 - 1])
    values = st.one_of(
        st.tuples(st.just("int64_param"), numbers),
        st.tuples(st.just("uint64_param"), st.sampled_from([0, 32, 2**63, 2**64 - 1])),
        st.tuples(st.just("string_param"), st.sampled_from(["all", "part", "", "none"])),
        st.tuples(st.just("bool_param"), st.booleans()),
        st.tuples(st.just("double_param"), st.floats()),
    )
    keys = ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification", "other"]
    return draw(st.dictionaries(st.sampled_from(keys), values))


@SEARCH
@given(st.lists(parameters(), min_size=2, max_size=2), st.booleans(), st.booleans())
def test_any_parameters_are_answered_or_refused(searched, given_parameters, has_raw, is_likely):
    """And what is answered lies where it was asked for; nothing else of the object changes."""
    engine, memory = searched
    before = bytes(range(256))
    memory.path.write_bytes(before)
    request = build_request("same", {"input": ROWS}, outputs=["output"])
    if not has_raw:
        del request.raw_input_contents[:]
    for tensor, rows in zip((request.inputs[0], request.outputs[0]), given_parameters, strict=True):
        if is_likely:
            place_tensor(tensor, "all", SIZE)
        for key, (kind, value) in rows.items():
            setattr(tensor.parameters[key], kind, value)
    code, output = ask(engine, request)
    if code != status.OK:
        assert code in (status.INVALID, status.EXHAUSTED)
        assert memory.read() == before
        return
    start, size = 0, 0
    if "shared_memory_region" in output.parameters:
        start = output.parameters["shared_memory_offset"].int64_param
        start += 16 * (output.parameters["shared_memory_region"].string_param == "part")
        size = output.parameters["shared_memory_byte_size"].int64_param
        assert size == SIZE
    after = memory.read()
    assert after[:start] + after[start + size :] == before[:start] + before[start + size :]


def ask(engine, request):
    """The code, and the output of a request that was answered."""
    try:
        return status.OK, ModelInferResponse.FromString(engine.infer(request.SerializeToString())).outputs[0]
    except InferError as refusal:
        return refusal.code, None


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """An engine and an object that it knows as `all` and in part, for many requests."""
    engine = Engine(workers=1)
    path = onnx_models.save(onnx_models.identity(), tmp_path_factory.mktemp("searched"), "same")
    engine.load("same", 1, Session(path), max_batch_size=8)
    with MemoryObject(bytes(256)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 256)
        engine.shared_memory.register("part", memory.key, 16, 40)
        yield engine, memory
    engine.close()
