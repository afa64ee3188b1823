"""CUDA shared memory between processes: a server that finds host_cuda.c as the system's CUDA, and one without any."""

import grpc
import onnx_models
import pytest

from kernels.cuda_libraries import find_runtimes
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.checks_process import run_checks
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.host_cuda import build_host_cuda

TIMEOUT_S = 30.0
# Files, not names: those would be found before anything of the system.
is_installed = any(path.startswith("/") for path in find_runtimes())
needs_no_cuda = pytest.mark.skipif(is_installed, reason="the packages of CUDA's runtime are installed")
LANES = 'max_batch_size: 8 parameters { key: "buffer_sets" value { string_value: "2" } }'


@needs_no_cuda
@pytest.mark.parametrize("config", ["max_batch_size: 8", LANES], ids=["workers", "lanes"])
def test_tritonclient_shares_memory_of_gpus(transport, tmp_path, monkeypatch, config):
    """Every check of triton_cuda_checks passes."""
    onnx_models.save(onnx_models.identity(), tmp_path, "identity_FP32", config=config)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_host_cuda()))
    with ServerProcess(tmp_path, "--insecure") as server:
        run_checks("triton_cuda_checks.py", TARGET=Target(server.address).to_json())


@needs_no_cuda
def test_server_without_cuda_answers_properly(plain):
    """No region is there, none can be registered, and to forget what is not there is no error."""
    with plain.connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert not stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(), timeout=TIMEOUT_S).regions
        with pytest.raises(grpc.RpcError, match="unknown shared memory region 'frames'") as raised:
            stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(name="frames"), timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        request = pb.CudaSharedMemoryRegisterRequest(name="frames", raw_handle=bytes(64), device_id=0, byte_size=64)
        with pytest.raises(grpc.RpcError, match="'frames' cannot be registered: this server has no CUDA") as raised:
            stub.CudaSharedMemoryRegister(request, timeout=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for name in ("", "frames"):
            stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name=name), timeout=TIMEOUT_S)
