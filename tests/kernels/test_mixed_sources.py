"""Inputs of one request from several sources: raw contents, typed contents and shared memory."""

import itertools

import numpy as np
import onnx_models
import pytest
from datatypes import DTYPES
from engine_calls import infer, refusal_of
from inference_messages import build_request, decode_reply, write_raw
from memory_objects import MemoryObject, place_tensor
from onnx import TensorProto, helper

from kernels import status
from kernels.reference import CARRIERS
from kernels.session import Session
from service.pb.open_inference_pb2 import ModelInferResponse

SOURCES = ("raw", "typed", "shared")
TYPED = {
    "BOOL": [True, False],
    "BYTES": [b"", b"a\0b", "ü".encode()],
    "FP32": [1.5, -np.inf, 2.0**-149],
    "FP64": [0.1, np.inf, -(2.0**-1074)],
} | {
    name: [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), 1]
    for name, dtype in DTYPES.items()
    if np.dtype(dtype).kind in "iu"
}
ARRAYS = {
    "a": np.array([[1, 2, 3]], np.float32),
    "b": np.array([[4, 5, 6]], np.float32),
    "c": np.array([[b"x\0", b"", b"z"]], dtype=object),
}


def triple():
    """Two FP32 inputs and one of BYTES, [batch, 3], each to an output of its own."""
    types = {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT, "c": TensorProto.STRING}
    nodes = [helper.make_node("Identity", [name], [f"same_{name}"]) for name in types]
    inputs, outputs = (
        [helper.make_tensor_value_info(prefix + name, kind, ["batch", 3]) for name, kind in types.items()]
        for prefix in ("", "same_")
    )
    return helper.make_model(
        helper.make_graph(nodes, "test", inputs, outputs),
        opset_imports=[helper.make_opsetid("", onnx_models.OPSET)],
        ir_version=onnx_models.IR_VERSION,
    )


def request_from(sources, memory):
    """A request whose inputs come from these sources, in their order."""
    request = build_request("triple", ARRAYS)
    del request.raw_input_contents[:]
    offset = 0
    for tensor, source in zip(request.inputs, sources, strict=True):
        content = write_raw(ARRAYS[tensor.name])
        if source == "raw":
            request.raw_input_contents.append(content)
        elif source == "typed":
            field = tensor.contents.bytes_contents if tensor.name == "c" else tensor.contents.fp32_contents
            field.extend(ARRAYS[tensor.name].ravel().tolist())
        else:
            with memory.path.open("r+b") as file:
                file.seek(offset)
                file.write(content)
            place_tensor(tensor, "all", len(content), offset)
            offset += len(content) + 1
    return request


@pytest.mark.parametrize("sources", list(itertools.product(SOURCES, repeat=3)), ids="-".join)
def test_inputs_of_any_sources_come_together(engine, load, sources):
    """Raw contents go, in their order, to the inputs that have no other source."""
    load(triple(), "triple", max_batch_size=4)
    with MemoryObject(bytes(256)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 256)
        request = request_from(sources, memory)
        outputs = decode_reply(engine.infer(request.SerializeToString()))
    assert {name: output.tolist() for name, output in outputs.items()} == {
        f"same_{name}": array.tolist() for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize(
    ("sources", "extra"),
    [(("raw", "typed", "typed"), 1), (("raw", "raw", "typed"), -1), (("typed", "shared", "raw"), -1)],
)
def test_other_number_of_raw_contents_is_refused(engine, load, sources, extra):
    """Nobody is given another's bytes."""
    load(triple(), "triple", max_batch_size=4)
    with MemoryObject(bytes(256)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 256)
        request = request_from(sources, memory)
        if extra > 0:
            request.raw_input_contents.append(bytes(12))
        else:
            del request.raw_input_contents[-1]
        code, text = refusal_of(engine, request.SerializeToString())
    assert code == status.INVALID
    assert "raw_input_contents" in text or "has 0 elements" in text


def test_outputs_leave_each_its_own_way(engine, load):
    """In the reply, in shared memory and as classes, of one request."""
    load(triple(), "triple", max_batch_size=4)
    with MemoryObject(bytes(64)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 64)
        request = build_request("triple", ARRAYS, outputs=["same_b", "same_c", "same_a"])
        request.outputs[0].parameters["classification"].int64_param = 2
        size = len(write_raw(ARRAYS["c"]))
        place_tensor(request.outputs[1], "all", 60, 4)
        response = ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
        assert memory.read(4, size) == write_raw(ARRAYS["c"])
    assert [output.name for output in response.outputs] == ["same_b", "same_c", "same_a"]
    assert response.outputs[1].parameters["shared_memory_byte_size"].int64_param == size
    assert response.raw_output_contents[1] == b""
    del response.outputs[1], response.raw_output_contents[1]
    outputs = decode_reply(response.SerializeToString())
    assert outputs["same_b"].tolist() == [[b"6.000000:2", b"5.000000:1"]]
    np.testing.assert_array_equal(outputs["same_a"], ARRAYS["a"])


def test_optional_input_may_come_from_shared_memory(engine, tmp_path):
    """As any other."""
    path = onnx_models.save(onnx_models.scaler(), tmp_path, "scaler")
    engine.load("scaler", 1, Session(path, optional_inputs=["scale"]))
    rows = np.array([1, 2], np.float32)
    with MemoryObject(np.float32(7).tobytes()) as memory:
        engine.shared_memory.register("all", memory.key, 0, 4)
        request = build_request("scaler", {"scale": np.ones(1, np.float32), "input": rows})
        del request.raw_input_contents[0]
        place_tensor(request.inputs[0], "all", 4)
        np.testing.assert_array_equal(decode_reply(engine.infer(request.SerializeToString()))["output"], rows * 7)
    np.testing.assert_array_equal(infer(engine, "scaler", {"input": rows})["output"], rows * 2)


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_of_every_datatype_come_back_raw(engine, load, datatype):
    """At the ends of its range, beside a raw request of the same that gives the same reply."""
    values = TYPED[datatype]
    array = np.array([values], object if datatype == "BYTES" else DTYPES[datatype])
    load(onnx_models.identity(onnx_models.ELEMENT_TYPES[datatype], ("batch", len(values))), "same", max_batch_size=4)
    raw, typed = build_request("same", {"input": array}), build_request("same", {"input": array})
    del typed.raw_input_contents[:]
    getattr(typed.inputs[0].contents, CARRIERS[datatype]).extend(values)
    replies = [engine.infer(request.SerializeToString()) for request in (raw, typed)]
    assert replies[0] == replies[1]
    assert decode_reply(replies[1])["output"].tolist() == array.tolist()
