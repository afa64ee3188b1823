"""kernels.shared_memory: tensors that lie in registered regions."""

import contextlib
import threading

import numpy as np
import onnx_models
import pytest
from engine_calls import await_calls, refusal_of, submit_all
from inference_messages import build_request, decode_reply, write_raw
from memory_objects import MemoryObject, open_descriptors, place_tensor
from onnx import TensorProto

from kernels import status
from kernels.completions import CompletionQueue
from kernels.engine import Engine, InferError
from kernels.session import Session
from service.pb.open_inference_pb2 import ModelInferResponse

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
SIZE = ROWS.nbytes
STRINGS = np.array([[b"a\0b", b"", "ü".encode(), b"x" * 300]], dtype=object)


@pytest.fixture
def memory():
    """An object of 256 bytes, of which each is its own number."""
    with MemoryObject(bytes(range(256))) as made:
        yield made


@pytest.fixture
def identity(engine, load, memory):
    """An engine that returns FP32 [batch, 4], and knows the object as `all`."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    engine.shared_memory.register("all", memory.key, 0, 256)
    return engine


def request_in(region="all", size=SIZE, offset=None, **options):
    """A request whose input lies in a region."""
    request = build_request("same", {"input": ROWS}, **options)
    del request.raw_input_contents[:]
    place_tensor(request.inputs[0], region, size, offset)
    return request


def request_out(region="all", size=SIZE, offset=None):
    """A request whose output goes to a region."""
    request = build_request("same", {"input": ROWS}, outputs=["output"])
    place_tensor(request.outputs[0], region, size, offset)
    return request


def infer(engine, request):
    """The reply's message."""
    return ModelInferResponse.FromString(engine.infer(request.SerializeToString()))


# ---- inputs


@pytest.mark.parametrize("offset", [None, 0, 1, 100, 256 - SIZE])
def test_input_is_read_from_its_region(identity, memory, offset):
    """At any offset, aligned or not, up to the last byte."""
    start = offset or 0
    content = bytearray(256)
    content[start : start + SIZE] = ROWS.tobytes()
    memory.path.write_bytes(content)
    output = decode_reply(identity.infer(request_in(offset=offset).SerializeToString()))["output"]
    np.testing.assert_array_equal(output, ROWS)


def test_input_is_read_from_its_region_and_not_from_its_object(engine, load, memory):
    """The region's own offset counts as well."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    memory.path.write_bytes(bytes(100) + ROWS.tobytes() + bytes(100))
    engine.shared_memory.register("middle", memory.key, 90, 64)
    reply = engine.infer(request_in("middle", offset=10).SerializeToString())
    np.testing.assert_array_equal(decode_reply(reply)["output"], ROWS)


@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [
        (SIZE - 1, None, "has 31 bytes in shared memory; expected 32 for its shape and FP32"),
        (SIZE + 1, None, "has 33 bytes in shared memory; expected 32"),
        (0, None, "has 0 bytes in shared memory; expected 32"),
        (SIZE, 225, "has 32 bytes from byte 225 on of shared memory region 'all', which has 256"),
        (SIZE, 2**63 - 1, "has 32 bytes from byte 9223372036854775807 on of shared memory region 'all'"),
        (2**63 - 1, 2**63 - 1, "bytes from byte 9223372036854775807 on of shared memory region 'all'"),
        (-1, None, "needs shared_memory_byte_size as an int64_param of 0 or more"),
        (SIZE, -1, "needs shared_memory_offset as an int64_param of 0 or more"),
    ],
)
def test_input_at_a_place_that_is_not_its_own_is_refused(identity, size, offset, expected):
    """Sizes and sums are checked before a byte is read."""
    code, text = refusal_of(identity, request_in(size=size, offset=offset).SerializeToString())
    assert code == status.INVALID
    assert text.startswith("input 'input' ")
    assert expected in text


def test_parameters_of_other_kinds_or_alone_are_refused(identity):
    """A number is no name, a text no number, and a size without a region nothing."""
    wrong_name, wrong_size, alone = request_in(), request_in(), request_in()
    wrong_name.inputs[0].parameters["shared_memory_region"].int64_param = 1
    wrong_size.inputs[0].parameters["shared_memory_byte_size"].string_param = "32"
    del alone.inputs[0].parameters["shared_memory_region"]
    without_size = request_in()
    del without_size.inputs[0].parameters["shared_memory_byte_size"]
    for request in (wrong_name, wrong_size, alone, without_size):
        assert refusal_of(identity, request.SerializeToString())[0] == status.INVALID


@pytest.mark.parametrize("request_by", [request_in, request_out])
def test_region_that_is_not_registered_is_refused(identity, request_by):
    """With the name that was given."""
    code, text = refusal_of(identity, request_by("none").SerializeToString())
    assert (code, "shared memory region 'none', which is not registered" in text) == (status.INVALID, True)


def test_input_with_contents_beside_its_region_is_refused(identity):
    """Typed or raw: which of the two would count is not for the server to guess."""
    typed, raw = request_in(), request_in()
    typed.inputs[0].contents.fp32_contents.extend(range(8))
    raw.raw_input_contents.append(ROWS.tobytes())
    for request in (typed, raw):
        assert refusal_of(identity, request.SerializeToString())[0] == status.INVALID


def test_object_that_was_cut_short_is_refused_and_the_server_lives(identity, memory):
    """Between registration and request; what would be SIGBUS in a mapping."""
    memory.truncate(SIZE - 1)
    code, text = refusal_of(identity, request_in().SerializeToString())
    assert code == status.INVALID
    assert text == "input 'input' lies in a shared memory object that has become shorter"
    code, text = refusal_of(identity, request_out().SerializeToString())
    assert (code, "cannot be written to its shared memory object" in text) == (status.INVALID, True)
    assert memory.path.stat().st_size == SIZE - 1
    memory.truncate(256)
    assert len(infer(identity, request_in()).raw_output_contents[0]) == SIZE


def test_object_that_was_unlinked_still_serves(identity, memory):
    """Its owner may have mapped it and removed the name, so that nothing is left behind."""
    memory.path.write_bytes(ROWS.tobytes() + bytes(224))
    memory.path.unlink()
    try:
        np.testing.assert_array_equal(decode_reply(identity.infer(request_in().SerializeToString()))["output"], ROWS)
    finally:
        memory.path.touch()


def test_strings_are_read_and_checked_in_their_region(engine, load):
    """Each byte of each string, and no prefix that leads out of the place."""
    load(onnx_models.identity(TensorProto.STRING), "same", max_batch_size=8)
    content = write_raw(STRINGS)
    with MemoryObject(content) as memory:
        engine.shared_memory.register("strings", memory.key, 0, len(content))
        request = build_request("same", {"input": STRINGS})
        del request.raw_input_contents[:]
        place_tensor(request.inputs[0], "strings", len(content))
        output = decode_reply(engine.infer(request.SerializeToString()))["output"]
        assert output.tolist() == STRINGS.tolist()
        memory.path.write_bytes(b"\xff\xff\xff\xff" + content[4:])
        code, text = refusal_of(engine, request.SerializeToString())
        assert (code, "has a BYTES element of 4294967295 bytes" in text) == (status.INVALID, True)


def test_more_than_may_be_held_is_refused_before_it_is_copied(tmp_path):
    """An object costs its owner nothing until it is written; the server would pay for all of it."""
    engine = Engine(max_pending_bytes=1 << 20)
    path = onnx_models.save(onnx_models.identity(TensorProto.UINT8, ("size",)), tmp_path, "same")
    engine.load("same", 1, Session(path))
    size = 1 << 40
    with MemoryObject(b"") as memory:
        memory.truncate(size)
        engine.shared_memory.register("huge", memory.key, 0, size)
        request = build_request("same", {"input": np.zeros(1, np.uint8)})
        request.inputs[0].shape[:] = [size]
        del request.raw_input_contents[:]
        place_tensor(request.inputs[0], "huge", size)
        code, text = refusal_of(engine, request.SerializeToString())
        assert code == status.EXHAUSTED
        assert f"has {size} bytes in shared memory; the server holds at most {1 << 20}" in text
        request.inputs[0].shape[:] = [1 << 19]
        place_tensor(request.inputs[0], "huge", 1 << 19)
        assert len(infer(engine, request).raw_output_contents[0]) == 1 << 19
    engine.close()


# ---- outputs


@pytest.mark.parametrize("offset", [None, 0, 1, 256 - SIZE])
@pytest.mark.parametrize("room", [SIZE, SIZE + 1, 200])
def test_output_is_written_to_its_region_and_nowhere_else(identity, memory, offset, room):
    """The reply says where, and how much it is, and carries no content."""
    start = offset or 0
    room = min(room, 256 - start)
    before = memory.read()
    response = infer(identity, request_out(size=room, offset=offset))
    assert memory.read() == before[:start] + ROWS.tobytes() + before[start + SIZE :]
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("output", "FP32", [2, 4])
    assert output.parameters["shared_memory_region"].string_param == "all"
    assert output.parameters["shared_memory_byte_size"].int64_param == SIZE
    assert output.parameters["shared_memory_offset"].int64_param == start
    # Clients look contents up by the place of the output.
    assert list(response.raw_output_contents) == [b""]


def test_output_that_does_not_fit_is_refused_before_it_is_run(identity, memory):
    """The size is known."""
    before = memory.read()
    code, text = refusal_of(identity, request_out(size=SIZE - 1).SerializeToString())
    assert (code, text) == (status.INVALID, "output 'output' has 32 bytes; its place in shared memory has 31")
    assert memory.read() == before


def test_output_whose_size_shows_late_fails_its_request_alone(engine, load, memory):
    """Strings are as long as the model makes them; a request that runs with it gets its rows, in the one run."""
    load(onnx_models.identity(TensorProto.STRING), "same", max_batch_size=8, queue_delay_us=2_000_000)
    engine.shared_memory.register("all", memory.key, 0, 256)
    other = np.array([[b"1", b"2", b"3", b"4"]], dtype=object)
    wide = build_request("same", {"input": STRINGS}, outputs=["output"])
    place_tensor(wide.outputs[0], "all", 256)
    plain = build_request("same", {"input": np.repeat(other, 7, axis=0)})
    outcomes = {}
    for call, code, payload in submit_all(engine, {"wide": wide, "plain": plain}):
        outcomes[call.context] = (code, payload)
    code, text = outcomes["wide"]
    assert (code, "its place in shared memory has 256" in text) == (status.INVALID, True)
    code, reply = outcomes["plain"]
    assert code == status.OK
    assert decode_reply(reply)["output"].tolist() == np.repeat(other, 7, axis=0).tolist()
    counts = engine.statistics("same", 1)
    assert (counts["executions"], counts["success"], counts["failed"]) == (1, 1, 1)


def test_outputs_that_overlap_are_refused(engine, load, memory):
    """In one region, and by two regions of one object."""
    load(onnx_models.add_and_subtract(4), "both", max_batch_size=8)
    engine.shared_memory.register("all", memory.key, 0, 256)
    engine.shared_memory.register("tail", memory.key, 100, 156)
    rows = {"a": ROWS, "b": ROWS}
    for place, other, overlaps in [
        (("all", SIZE, 0), ("all", SIZE, 0), True),
        (("all", SIZE, 0), ("all", SIZE, SIZE - 1), True),
        (("all", SIZE, SIZE), ("all", SIZE, 0), False),
        (("all", SIZE, 69), ("tail", SIZE, 0), True),
        (("all", SIZE, 68), ("tail", SIZE, 0), False),
    ]:
        request = build_request("both", rows, outputs=["sum", "difference"])
        place_tensor(request.outputs[0], *place)
        place_tensor(request.outputs[1], *other)
        if overlaps:
            code, text = refusal_of(engine, request.SerializeToString())
            assert (code, "goes where another output" in text) == (status.INVALID, True)
        else:
            assert len(infer(engine, request).outputs) == 2


def test_input_and_output_may_lie_in_one_place(identity, memory):
    """The input was copied before anything is written."""
    memory.path.write_bytes(ROWS.tobytes() + bytes(224))
    request = request_in(outputs=["output"])
    place_tensor(request.outputs[0], "all", SIZE, 4)
    infer(identity, request)
    assert memory.read(4, SIZE) == ROWS.tobytes()


def test_unregistered_region_is_open_until_its_requests_are_settled(engine, load, memory):
    """A request that waits or runs still writes its output; then nothing of the region is left."""
    load(onnx_models.identity(), "same", max_batch_size=8, queue_delay_us=300_000)
    engine.shared_memory.register("all", memory.key, 0, 256)
    queue = CompletionQueue(engine)
    queue.submit(request_out().SerializeToString(), None)
    queue.flush()
    engine.shared_memory.unregister_all()
    assert engine.shared_memory.regions() == {}
    assert open_descriptors(memory.path) == 1
    assert refusal_of(engine, request_in().SerializeToString())[0] == status.INVALID
    ((_, code, _),) = await_calls(queue, 1)
    assert code == status.OK
    assert memory.read(0, SIZE) == ROWS.tobytes()
    assert open_descriptors(memory.path) == 0


def test_registering_beside_requests_leaves_each_its_own_rows(engine, load):
    """Regions come and go under requests that name them; whoever is served gets the bytes of that region."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    stopped = threading.Event()
    with MemoryObject(ROWS.tobytes()) as one, MemoryObject((ROWS + 100).tobytes()) as other:

        def alternate():
            while not stopped.is_set():
                for memory in (one, other):
                    engine.shared_memory.register("changing", memory.key, 0, SIZE)
                    engine.shared_memory.unregister("changing")

        changer = threading.Thread(target=alternate)
        changer.start()
        outputs = []
        message = request_in("changing").SerializeToString()
        try:
            while len(outputs) < 200:
                with contextlib.suppress(InferError):
                    outputs.append(decode_reply(engine.infer(message))["output"])
        finally:
            stopped.set()
            changer.join()
        for output in outputs:
            assert output[0, 0] in (0, 100)
            np.testing.assert_array_equal(output - output[0, 0], ROWS)
        assert open_descriptors(one.path) + open_descriptors(other.path) == 0
