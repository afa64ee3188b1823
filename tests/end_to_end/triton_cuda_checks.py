"""What NVIDIA's own client sees of CUDA shared memory; test_cuda_memory_served runs it, as triton_checks are run.

The memory is host_cuda.c's: the client has no say in what a handle stands for.
"""

import base64
import contextlib
import json
import os

import numpy as np
import pytest
import tritonclient.grpc as triton
from host_cuda import GpuMemory
from tritonclient.utils import InferenceServerException

ADDRESS = json.loads(os.environ["TARGET"])["address"]
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
SIZE = ROWS.nbytes


@pytest.fixture
def client():
    """Triton's synchronous client, of a server that knows no region but the test's."""
    with triton.InferenceServerClient(ADDRESS) as client:
        client.unregister_cuda_shared_memory()
        yield client
        client.unregister_cuda_shared_memory()


@contextlib.contextmanager
def region(client, name, content, gpu=0):
    """Memory of a GPU, allocated here and registered there as Triton's examples do it."""
    with GpuMemory(content, gpu) as memory:
        client.register_cuda_shared_memory(name, base64.b64encode(memory.handle), gpu, memory.size)
        try:
            yield memory
        finally:
            client.unregister_cuda_shared_memory(name)


def infer(client, model="identity_FP32", given="in", made="out"):
    """One request from a region to another."""
    tensor = triton.InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_shared_memory(given, SIZE)
    output = triton.InferRequestedOutput("output")
    output.set_shared_memory(made, SIZE)
    return client.infer(model, [tensor], outputs=[output])


def test_tensors_go_and_come_in_memory_of_gpus(client):
    """From one process to the other and back, without a byte of them in a message."""
    with region(client, "in", ROWS.tobytes()) as given, region(client, "out", bytes(SIZE), gpu=1) as made:
        for factor in (1, 2, 3):
            given.write((ROWS * factor).tobytes())
            answer = infer(client)
            assert made.read() == (ROWS * factor).tobytes()
        output = answer.get_output("output")
        assert output.parameters["shared_memory_region"].string_param == "out"
        assert output.parameters["shared_memory_byte_size"].int64_param == SIZE


def test_regions_are_told(client):
    """As they were registered."""
    with region(client, "in", ROWS.tobytes(), gpu=1):
        (row,) = client.get_cuda_shared_memory_status().regions.values()
        assert (row.name, row.device_id, row.byte_size) == ("in", 1, SIZE)
        assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions


def test_region_that_is_unregistered_is_unknown(client):
    """Until it is registered again."""
    with region(client, "in", ROWS.tobytes()), region(client, "out", bytes(SIZE)):
        client.unregister_cuda_shared_memory("in")
        with pytest.raises(InferenceServerException, match="'in', which is not registered"):
            infer(client)
    with region(client, "in", ROWS.tobytes()), region(client, "out", bytes(SIZE)) as made:
        infer(client)
        assert made.read() == ROWS.tobytes()
