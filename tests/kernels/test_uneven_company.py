"""Ragged and padded batches beside what else a request can ask for: sequences, ensembles, shared memory, classes."""

import numpy as np
import pytest
import uneven_models
from engine_calls import infer, refusal_of, submit_all
from ensemble_graphs import load_ensemble, spec, step
from host_cuda import NAMES, GpuMemory, build_host_cuda
from inference_messages import build_request, build_turn, decode_reply, write_raw
from memory_objects import MemoryObject, place_tensor
from ways import Way, every_way

from kernels import status
from kernels.cuda_runtime import CudaRuntime
from kernels.engine import Engine
from kernels.sequence_rules import SequenceState
from kernels.uneven_rules import PaddedInput
from service.pb.open_inference_pb2 import ModelInferResponse
from tests.kernels.sequence_calls import LONG_US
from tests.kernels.uneven_calls import SUM_RULES, SUM_SHAPES, UnevenLoader


@pytest.fixture
def uneven(engine, tmp_path, way):
    """Loads models into the engine in the way of the test."""
    return UnevenLoader(engine, tmp_path, way)


@every_way
def test_sequences_add_up_requests_of_different_lengths(engine, uneven):
    """Each has its own state, while their requests share ragged batches."""
    uneven.load(
        uneven_models.ragged_accumulator(),
        "total",
        SUM_SHAPES,
        rules=SUM_RULES,
        sequences={
            "slots": 8,
            "idle_us": LONG_US,
            "states": [SequenceState("state", "new_state", (1,), bytes(4))],
        },
        queue_delay_us=100_000,
    )
    totals = dict.fromkeys(range(1, 5), 0)
    for turn in range(4):
        requests = {
            sequence: build_turn(
                "total", {"values": np.full((1, sequence + turn), sequence, np.float32)}, sequence, start=turn == 0
            )
            for sequence in totals
        }
        for call, code, payload in submit_all(engine, requests):
            assert code == status.OK, payload
            totals[call.context] += call.context * (call.context + turn)
            assert decode_reply(payload)["total"].tolist() == [totals[call.context]]
    assert engine.statistics("total", 1)["executions"] == 4


def test_steps_of_ensembles_are_ragged_and_padded(engine, uneven):
    """Requests of different lengths go through both together; what is made of a batch needs no tensor to feed it."""
    uneven.load_sums()
    uneven.load_encoder()
    load_ensemble(
        engine,
        "both",
        [spec("values", -1, -1), spec("ids", -1, -1, datatype="INT64"), spec("mask", -1, -1)],
        [spec("sum", -1), spec("again", -1, -1), spec("tokens", -1, -1, datatype="INT64")],
        [
            step("sums", {"values": "values"}, {"doubled": "twice"}),
            step("sums", {"values": "twice"}, {"output": "sum", "doubled": "again"}),
            step("encoder", {"ids": "ids", "mask": "mask"}, {"tokens": "tokens"}),
        ],
        max_batch_size=8,
    )
    calls = {
        length: {
            "values": np.full((1, length), length, np.float32),
            "ids": np.arange(length)[None],
            "mask": np.ones((1, length), np.float32),
        }
        for length in (2, 3, 4)
    }
    requests = {length: build_request("both", inputs) for length, inputs in calls.items()}
    for call, code, payload in submit_all(engine, requests):
        assert code == status.OK, payload
        outputs = decode_reply(payload)
        assert outputs["sum"].tolist() == [2 * call.context**2]
        assert outputs["again"].tolist() == [[4 * call.context] * call.context]
        assert outputs["tokens"].tolist() == [list(range(1, call.context + 1))]
    assert engine.statistics("sums", 1)["executions"] == 2
    assert engine.statistics("encoder", 1)["executions"] == 1
    assert engine.pending_bytes == 0


def test_ensemble_cannot_feed_what_is_made_of_a_batch(engine, uneven):
    """The step has no such input, as for any other caller."""
    uneven.load_sums(queue_delay_us=0)
    feeds = {"values": "values", "edges": "edges"}
    load_ensemble(
        engine,
        "fed",
        [spec("values", -1, -1), spec("edges", -1, datatype="INT32")],
        [spec("sum", -1)],
        [step("sums", feeds, {"output": "sum"})],
        max_batch_size=8,
    )
    assert engine.ensembles()["fed", 1] == "its step 'sums' has no input 'edges'"


@every_way
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_ragged_tensors_go_and_come_in_shared_memory(engine, uneven, datatype):
    """Read and written as elsewhere, beside a request that has its own in the message."""
    uneven.load_flat(datatype)
    array, other = np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([[7, 8]], np.float32)
    if datatype == "BYTES":
        array, other = (values.astype("S").astype(object) for values in (array, other))
    content = write_raw(array)
    with MemoryObject(content + bytes(2 * len(content))) as memory:
        engine.shared_memory.register("all", memory.key, 0, 3 * len(content))
        request = build_request("flat", {"values": array}, outputs=["same"])
        del request.raw_input_contents[:]
        place_tensor(request.inputs[0], "all", len(content))
        place_tensor(request.outputs[0], "all", 2 * len(content), len(content))
        done = submit_all(engine, {"shared": request, "plain": build_request("flat", {"values": other})})
        replies = {call.context: payload for call, code, payload in done if code == status.OK}
        assert memory.read(len(content), len(content)) == content
        [output] = ModelInferResponse.FromString(replies["shared"]).outputs
        assert list(output.shape) == [2, 3]
        assert decode_reply(replies["plain"])["same"].tolist() == other.tolist()
    assert engine.statistics("flat", 1)["executions"] == 1


@every_way
def test_padded_tensors_go_and_come_in_shared_memory(engine, uneven):
    """A place of the caller's own length is enough."""
    uneven.load_encoder({"multiple": 8}, queue_delay_us=0)
    ids = np.arange(6).reshape(2, 3)
    with MemoryObject(ids.tobytes() + bytes(ids.nbytes)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 2 * ids.nbytes)
        request = build_request("encoder", {"mask": np.ones((2, 3), np.float32), "ids": ids}, outputs=["tokens"])
        del request.raw_input_contents[1:]
        place_tensor(request.inputs[1], "all", ids.nbytes)
        place_tensor(request.outputs[0], "all", ids.nbytes, ids.nbytes)
        engine.infer(request.SerializeToString())
        np.testing.assert_array_equal(np.frombuffer(memory.read(ids.nbytes), np.int64).reshape(2, 3), ids + 1)


def test_scattered_output_that_does_not_fit_its_place_is_refused(engine, uneven):
    """An empty one fits anywhere, and its place is not measured by its rows."""
    uneven.load_flat("FP32", queue_delay_us=0)
    with MemoryObject(bytes(64)) as memory:
        engine.shared_memory.register("all", memory.key, 0, 64)
        for length, room in ((0, 0), (3, 12)):
            request = build_request("flat", {"values": np.ones((1, length), np.float32)}, outputs=["same"])
            place_tensor(request.outputs[0], "all", room)
            assert engine.infer(request.SerializeToString())
        place_tensor(request.outputs[0], "all", 8)
        code, text = refusal_of(engine, request.SerializeToString())
        assert (code, text) == (status.INVALID, "output 'same' has 12 bytes; its place in shared memory has 8")


@every_way
def test_classes_are_of_the_callers_own_elements(engine, uneven):
    """Of what is scattered and of what is cropped: no element of the padding is among them."""
    uneven.load_sums()
    uneven.load_encoder()
    requests = {}
    for length in (2, 3):
        ids = -np.arange(1, length + 1)[None]
        requests["encoder", length] = build_request(
            "encoder", {"ids": ids, "mask": np.ones((1, length), np.float32)}, outputs=["tokens"]
        )
        values = {"values": np.arange(length, dtype=np.float32)[None]}
        requests["sums", length] = build_request("sums", values, outputs=["doubled"])
        for model in ("encoder", "sums"):
            requests[model, length].outputs[0].parameters["classification"].int64_param = 5
    replies = {
        call.context: decode_reply(payload) for call, code, payload in submit_all(engine, requests) if code == status.OK
    }
    assert replies["encoder", 2]["tokens"].tolist() == [[b"0:0", b"-1:1"]]
    assert replies["encoder", 3]["tokens"].tolist() == [[b"0:0", b"-1:1", b"-2:2"]]
    assert replies["sums", 2]["doubled"].tolist() == [[b"2.000000:1", b"0.000000:0"]]
    assert replies["sums", 3]["doubled"].tolist() == [[b"4.000000:2", b"2.000000:1", b"0.000000:0"]]


@every_way
def test_server_timing_comes_beside_uneven_outputs(engine, uneven):
    """The reply is made after the run, as ever."""
    uneven.load_sums(queue_delay_us=0)
    request = build_request("sums", {"values": np.ones((1, 2000), np.float32)})
    request.parameters["server_timing"].bool_param = True
    reply = ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
    assert reply.parameters["server_timing.batch_size"].int64_param == 1
    assert infer(engine, "sums", {"values": np.ones((1, 2000), np.float32)})["output"].tolist() == [2000]


@pytest.fixture
def gpu_memory():
    """Memory of GPU 0, and an engine that takes host_cuda.c for CUDA and knows it as `gpu`."""
    folder = build_host_cuda()
    engine = Engine(workers=4)
    engine.shared_memory.use_cuda(CudaRuntime(str(folder / NAMES[0]), str(folder / NAMES[1])))
    with GpuMemory(np.arange(256, dtype=np.float32).tobytes()) as memory:
        engine.shared_memory.register_cuda("gpu", memory.handle, 0, 1024)
        yield engine
        engine.close()


def place_values(model, name, values, output):
    """A request whose input lies from byte 512 on in a GPU's memory, and whose output goes to byte 768."""
    request = build_request(model, {name: values}, outputs=[output])
    request.raw_input_contents.pop()
    place_tensor(request.inputs[0], "gpu", values.nbytes, 512)
    place_tensor(request.outputs[0], "gpu", values.nbytes, 768)
    return request


@pytest.mark.parametrize("kind", ["ragged", "padded"])
@pytest.mark.parametrize("others", [(), (2, 4)], ids=["alone", "together"])
def test_tensors_in_memory_of_gpus_are_ragged_and_padded(gpu_memory, tmp_path, kind, others):
    """Read there, or fetched for a batch, by a session on that GPU."""
    way = Way("cpu:staged:0", buffer_sets=2)
    uneven = UnevenLoader(gpu_memory, tmp_path, way)
    model, name = ("flat", "values") if kind == "ragged" else ("same", "input")
    if kind == "ragged":
        uneven.load_flat("FP32")
    else:
        padded = [PaddedInput("input", np.float32(-1).tobytes())]
        uneven.load(uneven_models.padded_identity("FP32"), "same", rules={"padded": padded, "multiple": 4})
    values = np.arange(128, 131, dtype=np.float32)[None]
    requests = {"gpu": place_values(model, name, values, "same")}
    requests |= {
        length: build_request(model, {name: np.full((1, length), length, np.float32)}, outputs=["same"])
        for length in others
    }
    for call, code, payload in submit_all(gpu_memory, requests):
        assert code == status.OK, payload
        if call.context != "gpu":
            assert decode_reply(payload)["same"].tolist() == [[call.context] * call.context]
            continue
        [output] = ModelInferResponse.FromString(payload).outputs
        assert list(output.shape) == [1, 3]
    again = build_request(model, {name: values}, outputs=["same"])
    again.raw_input_contents.pop()
    place_tensor(again.inputs[0], "gpu", values.nbytes, 768)
    assert decode_reply(gpu_memory.infer(again.SerializeToString()))["same"].tolist() == values.tolist()
    assert gpu_memory.statistics(model, 1)["executions"] == 2
