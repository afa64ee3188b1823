"""Memory of GPUs that clients share: tensors that lie in it.

The GPUs are host_cuda.c's, whose memory is the host's: a session on "cpu:staged:0" can therefore run on tensors where
they are, as one on a GPU does.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models
import pytest
from engine_calls import refusal_of, submit_all
from ensemble_graphs import load_chain
from host_cuda import GpuMemory, count_copies, open_host_cuda
from inference_messages import build_request, decode_reply, write_raw
from memory_objects import MemoryObject, place_tensor
from onnx import TensorProto

from kernels import status
from kernels.engine import Engine, InferError
from kernels.session import Session
from service.pb.open_inference_pb2 import ModelInferResponse

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
SIZE = ROWS.nbytes
STRINGS = np.array([[b"a\0b", b"", "ü".encode(), b"x" * 300]], dtype=object)
REGION_BYTES = 1024
# Where CUDA's kernels may expect a tensor to begin, and where not.
ALIGNED, UNALIGNED = 512, 516
MANY_ITERATIONS = 300_000.0
# Where a session runs, where a tensor lies, and how many copies that takes.
every_place = pytest.mark.parametrize(
    ("device", "offset", "copies"),
    [
        ("cpu:staged:0", 0, 0),
        ("cpu:staged:0", ALIGNED, 0),
        ("cpu:staged:0", UNALIGNED, 1),
        ("cpu:staged:1", 0, 1),
        ("cpu:staged", 0, 1),
        ("cpu", 0, 1),
    ],
)


@pytest.fixture
def memory():
    """Memory of GPU 0 whose bytes are their own numbers."""
    with GpuMemory(bytes(range(256)) * (REGION_BYTES // 256)) as made:
        yield made


@pytest.fixture
def engine():
    """An engine that takes host_cuda.c for CUDA."""
    made = Engine(workers=4)
    made.shared_memory.use_cuda(open_host_cuda())
    yield made
    made.close()


@pytest.fixture
def engine_with_cache():
    """Another one, which keeps replies."""
    made = Engine(workers=2, response_cache_bytes=1 << 20)
    made.shared_memory.use_cuda(open_host_cuda())
    yield made
    made.close()


@pytest.fixture
def load(engine, tmp_path):
    """Load a model on a device: load(model, device, **options of Engine.load)."""

    def load_model(model, device="cpu:staged:0", name="same", **options):
        path = onnx_models.save(model, tmp_path, name)
        sets = 2 if device != "cpu" else 0
        engine.load(name, 1, Session(path, device=device), buffer_sets=sets, **{"max_batch_size": 8, **options})

    return load_model


def request_in(rows=ROWS, offset=None, region="gpu", **options):
    """A request whose input lies in a region."""
    request = build_request("same", {"input": rows}, **options)
    size = len(request.raw_input_contents.pop())
    place_tensor(request.inputs[0], region, size, offset)
    return request


def infer(engine, request):
    """The reply's message."""
    return ModelInferResponse.FromString(engine.infer(request.SerializeToString()))


def copies_of(engine, request):
    """The reply's message, and how many copies to or from a GPU it took."""
    before = count_copies()
    reply = infer(engine, request)
    return reply, count_copies() - before


@every_place
def test_input_is_read_where_it_is_or_copied(engine, load, memory, device, offset, copies):
    """Where it is by a session on its GPU, if it lies as CUDA's allocations do."""
    load(onnx_models.identity(), device)
    memory.write(ROWS.tobytes(), offset)
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    reply, made = copies_of(engine, request_in(offset=offset))
    assert reply.raw_output_contents[0] == ROWS.tobytes()
    assert made == copies


@every_place
def test_output_is_written_where_it_goes_or_copied(engine, load, memory, device, offset, copies):
    """The reply says where it is; what lies around it is left as it was."""
    load(onnx_models.identity(), device)
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    request = build_request("same", {"input": ROWS}, outputs=["output"])
    place_tensor(request.outputs[0], "gpu", SIZE + 8, offset)
    before = memory.read()
    reply, made = copies_of(engine, request)
    assert made == copies
    assert reply.raw_output_contents == [b""]
    assert reply.outputs[0].parameters["shared_memory_region"].string_param == "gpu"
    assert reply.outputs[0].parameters["shared_memory_byte_size"].int64_param == SIZE
    assert memory.read() == before[:offset] + ROWS.tobytes() + before[offset + SIZE :]


def test_tensors_of_one_request_may_lie_in_several_places(engine, load, memory):
    """One input of a GPU, one in the message; one output there, one in system shared memory."""
    a, b = np.full((2, 4), 5, np.float32), np.full((2, 4), 2, np.float32)
    load(onnx_models.add_and_subtract(4))
    memory.write(a.tobytes())
    with MemoryObject(bytes(SIZE)) as plain:
        engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
        engine.shared_memory.register("plain", plain.key, 0, SIZE)
        request = build_request("same", {"a": a, "b": b}, outputs=["sum", "difference"])
        del request.raw_input_contents[0]
        place_tensor(request.inputs[0], "gpu", SIZE)
        place_tensor(request.outputs[0], "gpu", SIZE, ALIGNED)
        place_tensor(request.outputs[1], "plain", SIZE)
        _, made = copies_of(engine, request)
        assert made == 0
        assert memory.read(ALIGNED, SIZE) == (a + b).tobytes()
        assert plain.read() == (a - b).tobytes()


def test_ensemble_reads_what_lies_on_a_gpu(engine, load, memory):
    """Its steps may run anywhere, and the first one's input is copied to where they read it."""
    load(onnx_models.identity(), "cpu")
    load_chain(engine, "same", "same")
    memory.write(ROWS.tobytes())
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    request = request_in()
    request.model_name = "chain"
    place_tensor(request.outputs.add(name="output"), "gpu", SIZE, ALIGNED)
    infer(engine, request)
    assert memory.read(ALIGNED, SIZE) == ROWS.tobytes()


def test_request_whose_input_stays_on_a_gpu_is_always_run(engine_with_cache, memory, tmp_path):
    """The response cache has no bytes of it to tell it by."""
    engine = engine_with_cache
    path = onnx_models.save(onnx_models.identity(), tmp_path, "same")
    session = Session(path, device="cpu:staged:0")
    engine.load("same", 1, session, buffer_sets=2, max_batch_size=8, cache_replies=True)
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    for value in (1, 2):
        memory.write(np.full((2, 4), value, np.float32).tobytes())
        assert decode_reply(infer(engine, request_in()).SerializeToString())["output"].tolist() == [[value] * 4] * 2
    assert engine.cache_usage()["entries"] == 0


def test_output_over_an_input_is_copied(engine, load, memory):
    """The run might write what it has still to read."""
    a, b = np.full((2, 4), 5, np.float32), np.full((2, 4), 2, np.float32)
    load(onnx_models.add_and_subtract(4))
    memory.write(a.tobytes() + bytes(256 - SIZE) + b.tobytes())
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    engine.shared_memory.register_cuda("again", memory.handle, 0, REGION_BYTES)
    request = build_request("same", {"a": a, "b": b}, outputs=["sum", "difference"])
    del request.raw_input_contents[:]
    place_tensor(request.inputs[0], "gpu", SIZE)
    place_tensor(request.inputs[1], "gpu", SIZE, 256)
    # The same bytes by another name.
    place_tensor(request.outputs[0], "again", SIZE)
    place_tensor(request.outputs[1], "again", SIZE, ALIGNED)
    _, made = copies_of(engine, request)
    assert made == 1
    assert (memory.read(0, SIZE), memory.read(ALIGNED, SIZE)) == ((a + b).tobytes(), (a - b).tobytes())


@pytest.mark.parametrize("device", ["cpu", "cpu:staged:0"])
def test_batch_of_several_requests_keeps_them_apart(engine, load, device):
    """From one region to another, each its own rows."""
    load(onnx_models.identity(), device, queue_delay_us=200_000)
    rows = np.arange(32, dtype=np.float32).reshape(8, 4)
    with GpuMemory(rows.tobytes()) as given, GpuMemory(bytes(rows.nbytes), gpu=1) as made:
        engine.shared_memory.register_cuda("in", given.handle, 0, rows.nbytes)
        engine.shared_memory.register_cuda("out", made.handle, 1, rows.nbytes)
        requests = {}
        for index in range(8):
            requests[index] = request_in(rows[index : index + 1], 16 * index, "in", outputs=["output"])
            place_tensor(requests[index].outputs[0], "out", 16, 16 * index)
        assert {code for _, code, _ in submit_all(engine, requests)} == {status.OK}
        assert made.read() == rows.tobytes()
        assert engine.statistics("same", 1)["executions"] == 1
        engine.shared_memory.unregister_all_cuda()


@pytest.mark.parametrize("device", ["cpu", "cpu:staged:0"])
def test_strings_are_checked_and_given(engine, load, device):
    """A copy of them, which nobody else can change."""
    load(onnx_models.identity(TensorProto.STRING), device)
    content = write_raw(STRINGS)
    with GpuMemory(content + bytes(64)) as memory, GpuMemory(bytes(512)) as target:
        engine.shared_memory.register_cuda("gpu", memory.handle, 0, memory.size)
        engine.shared_memory.register_cuda("out", target.handle, 0, 512)
        request = request_in(STRINGS, outputs=["output"])
        place_tensor(request.outputs[0], "out", 512)
        infer(engine, request)
        assert target.read(0, len(content)) == content
        memory.write(b"\xff\xff\xff\xff")
        code, text = refusal_of(engine, request.SerializeToString())
        assert (code, "expected 4-byte little-endian length prefixes" in text) == (status.INVALID, True)
        engine.shared_memory.unregister_all_cuda()


@pytest.mark.parametrize("device", ["cpu", "cpu:staged:0"])
def test_booleans_of_any_value_become_true(engine, load, memory, device):
    """As those in messages do."""
    load(onnx_models.identity(TensorProto.BOOL), device)
    memory.write(bytes([0, 1, 2, 255]))
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    request = request_in(np.ones((1, 4), np.bool_))
    assert infer(engine, request).raw_output_contents == [bytes([0, 1, 1, 1])]


@pytest.mark.parametrize("device", ["cpu", "cpu:staged:0"])
def test_output_of_a_size_that_the_model_chooses_is_copied(engine, load, memory, device):
    """The place that it is given turns out to be too large for it: found out by the run."""
    load(onnx_models.shorter_than_declared(4), device, max_batch_size=0)
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    request = build_request("same", {"input": ROWS[:1]}, outputs=["output"])
    place_tensor(request.outputs[0], "gpu", 16)
    for _ in range(2):
        reply, made = copies_of(engine, request)
        assert made == 1
        assert reply.outputs[0].parameters["shared_memory_byte_size"].int64_param == 8
        assert memory.read(0, 8) == ROWS[0, :2].tobytes()


def test_region_is_kept_while_a_request_uses_it(engine, load, memory):
    """Unregistered or not, the run has it to its end; then it is closed."""
    load(onnx_models.slow_by_value(), "cpu:staged:0")
    rows = np.full((1, 4), MANY_ITERATIONS, np.float32)
    memory.write(rows.tobytes())
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(infer, engine, request_in(rows))
        while engine.statistics("same", 1)["running"] == 0:
            pass
        engine.shared_memory.unregister_cuda("gpu")
        assert not running.done()
        assert memory.opened == 1
        assert decode_reply(running.result().SerializeToString())["output"].tolist() == rows.tolist()
    assert memory.opened == 0
    code, text = refusal_of(engine, request_in(rows).SerializeToString())
    assert (code, "'gpu', which is not registered" in text) == (status.INVALID, True)


@pytest.mark.parametrize("device", ["cpu", "cpu:staged:0"])
def test_regions_may_come_and_go_under_load(engine, load, memory, device):
    """Each request finds its region or hears that there is none; nothing stays open."""
    load(onnx_models.identity(), device)
    memory.write(ROWS.tobytes())
    ended = threading.Event()
    message = request_in().SerializeToString()

    def ask():
        outcomes = set()
        while not ended.is_set():
            try:
                [content] = ModelInferResponse.FromString(engine.infer(message)).raw_output_contents
                outcomes.add(content)
            except InferError as error:
                outcomes.add((error.code, error.message.partition("region ")[2]))
        return outcomes

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(ask) for _ in range(4)]
        for _ in range(300):
            engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
            engine.shared_memory.unregister_cuda("gpu")
        engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
        infer(engine, request_in())
        ended.set()
        for caller in callers:
            assert caller.result() <= {ROWS.tobytes(), (status.INVALID, "'gpu', which is not registered")}
    engine.shared_memory.unregister_cuda("gpu")
    assert memory.opened == 0


@pytest.mark.parametrize(
    ("size", "offset", "text"),
    [
        (SIZE, REGION_BYTES - SIZE + 1, "from byte 993 on of shared memory region 'gpu', which has 1024"),
        (SIZE, 2**63 - 1, "which has 1024"),
        (SIZE - 1, 0, "has 31 bytes in shared memory; expected 32"),
        (2**62, 0, "which has 1024"),
    ],
)
def test_input_beyond_its_region_is_refused(engine, load, memory, size, offset, text):
    """As in system shared memory: the same checks."""
    load(onnx_models.identity())
    engine.shared_memory.register_cuda("gpu", memory.handle, 0, REGION_BYTES)
    request = request_in()
    place_tensor(request.inputs[0], "gpu", size, offset)
    code, said = refusal_of(engine, request.SerializeToString())
    assert (code, text in said) == (status.INVALID, True), said


def test_outputs_in_one_place_are_refused(engine, load, memory):
    """Also by two names of the same memory."""
    load(onnx_models.add_and_subtract(4))
    for name in ("gpu", "again"):
        engine.shared_memory.register_cuda(name, memory.handle, 0, REGION_BYTES)
    request = build_request("same", {"a": ROWS, "b": ROWS}, outputs=["sum", "difference"])
    place_tensor(request.outputs[0], "gpu", SIZE)
    place_tensor(request.outputs[1], "again", SIZE, 4)
    code, text = refusal_of(engine, request.SerializeToString())
    assert (code, "do not overlap" in text) == (status.INVALID, True)
