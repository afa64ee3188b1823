"""Memory that another process has allocated: host_cuda.c's on any machine, and a GPU's where there is one."""

import numpy as np
import onnx_models
import pytest
from inference_messages import build_request
from memory_objects import place_tensor

from kernels.cuda_runtime import open_cuda
from kernels.engine import Engine
from kernels.session import Session
from service.model_sessions import list_usable_gpus
from tests.cuda_client import running_client
from tests.host_cuda import open_host_cuda

ROWS = np.arange(256, dtype=np.float32).reshape(64, 4)
SIZE = ROWS.nbytes
PLACES = [
    "host",
    pytest.param(
        "gpu",
        marks=pytest.mark.skipif(
            not list_usable_gpus(), reason="no GPU that ONNX Runtime can use: see `sluice doctor`"
        ),
    ),
]


def open_place(place):
    """CUDA's runtime, and the device of a session that reads its memory."""
    if place == "gpu":
        return open_cuda(), "cuda:0"
    return open_host_cuda(), "cpu:staged:0"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("offset", [SIZE, SIZE + 4], ids=["in_place", "copied"])
def test_tensors_go_from_process_to_process_and_back(tmp_path, place, offset):
    """Read by the session where the client has put them, and written where it looks for them."""
    cuda, device = open_place(place)
    engine = Engine(workers=2)
    engine.shared_memory.use_cuda(cuda)
    path = onnx_models.save(onnx_models.add_and_subtract(4), tmp_path, "sums")
    engine.load("sums", 1, Session(path, device=device), max_batch_size=64, buffer_sets=2)
    with running_client(cuda.path, ROWS.tobytes() + bytes(SIZE + 4)) as client:
        engine.shared_memory.register_cuda("gpu", client.handle, 0, 2 * SIZE + 4)
        request = build_request("sums", {"a": ROWS, "b": ROWS}, outputs=["sum"])
        del request.raw_input_contents[:]
        place_tensor(request.inputs[0], "gpu", SIZE)
        place_tensor(request.inputs[1], "gpu", SIZE)
        place_tensor(request.outputs[0], "gpu", SIZE, offset)
        for _ in range(3):
            engine.infer(request.SerializeToString())
        found = client.read()
        assert found[:SIZE] == ROWS.tobytes()
        assert found[offset : offset + SIZE] == (ROWS + ROWS).tobytes()
        engine.shared_memory.unregister_all_cuda()
    engine.close()
