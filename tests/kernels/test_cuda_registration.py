"""Memory of GPUs that clients share: which can be registered. The GPUs are host_cuda.c's, in the host's memory."""

import pytest
from host_cuda import HANDLE_BYTES, GpuMemory, open_host_cuda
from memory_objects import MemoryObject

from kernels import status
from kernels.cuda_libraries import find_runtimes, load_cuda_libraries
from kernels.cuda_runtime import CudaError, CudaRuntime
from kernels.shared_memory import SharedMemory, SharedMemoryError

REGION_BYTES = 1024
HAS_CUDA = bool(load_cuda_libraries()) or any(path.startswith("/") for path in find_runtimes())


@pytest.fixture
def regions():
    """A table of regions that takes host_cuda.c for CUDA."""
    made = SharedMemory()
    made.use_cuda(open_host_cuda())
    return made


@pytest.fixture
def memory():
    """Memory of GPU 0 whose bytes are their own numbers."""
    with GpuMemory(bytes(range(256)) * (REGION_BYTES // 256)) as made:
        yield made


def refused(regions, *arguments):
    """Code and text of a registration that must fail."""
    with pytest.raises(SharedMemoryError) as refusal:
        regions.register_cuda(*arguments)
    return refusal.value.code, str(refusal.value)


def test_region_is_known_until_it_is_unregistered(regions, memory):
    """By its name; and it is open for just as long."""
    regions.register_cuda("one", memory.handle, 0, 32)
    regions.register_cuda("two", memory.handle, 0, REGION_BYTES)
    assert regions.cuda_regions() == {"one": (0, 32), "two": (0, REGION_BYTES)}
    assert regions.regions() == {}
    assert memory.opened == 2
    regions.unregister_cuda("one")
    regions.unregister_cuda("one")
    assert (list(regions.cuda_regions()), memory.opened) == (["two"], 1)
    regions.unregister_all_cuda()
    assert (regions.cuda_regions(), memory.opened) == ({}, 0)


def test_regions_of_a_table_that_goes_away_are_closed(memory):
    """Whoever registered them has not said good-bye."""
    regions = SharedMemory()
    regions.use_cuda(open_host_cuda())
    regions.register_cuda("one", memory.handle, 0, 32)
    del regions
    assert memory.opened == 0


def test_system_and_gpu_regions_have_one_name_space(regions, memory):
    """A request names a region, and not its kind; each kind is unregistered by its own call."""
    with MemoryObject(bytes(64)) as plain:
        regions.register("plain", plain.key, 0, 64)
        regions.register_cuda("gpu", memory.handle, 0, 64)
        assert refused(regions, "plain", memory.handle, 0, 8)[0] == status.ALREADY_EXISTS
        with pytest.raises(SharedMemoryError, match="'gpu' is registered already"):
            regions.register("gpu", plain.key, 0, 64)
        regions.unregister("gpu")
        regions.unregister_cuda("plain")
        regions.unregister_all()
        assert (regions.regions(), list(regions.cuda_regions())) == ({}, ["gpu"])
    assert memory.opened == 1


@pytest.mark.parametrize(
    ("gpu", "size", "text"),
    [
        (0, REGION_BYTES + 1, "bytes, and the memory 1024"),
        (0, 2**63 - 1, "bytes, and the memory 1024"),
        (0, 0, "byte_size: expected at least 1"),
        (0, 2**63, "less than 2^63"),
        (0, 2**64 - 1, "less than 2^63"),
        (2, 8, "device_id: there is no GPU 2"),
        (-1, 8, "device_id: there is no GPU -1"),
        (2**32, 8, "device_id: there is no GPU 4294967296"),
        (1, 8, "invalid resource handle"),
    ],
)
def test_region_that_is_not_on_its_gpu_is_refused(regions, memory, gpu, size, text):
    """Nothing of it stays open."""
    code, said = refused(regions, "gpu", memory.handle, gpu, size)
    assert (code, text in said) == (status.INVALID, True), said
    assert (memory.opened, regions.cuda_regions()) == (0, {})


@pytest.mark.parametrize(
    ("handle", "text"),
    [
        (b"", "expected the 64 bytes of a CUDA IPC handle, given 0"),
        (bytes(HANDLE_BYTES - 1), "given 63"),
        (bytes(HANDLE_BYTES + 1), "given 65"),
        (bytes(HANDLE_BYTES), "invalid resource handle"),
        (b"/sluice-gpu0-none".ljust(HANDLE_BYTES, b"\0"), "invalid resource handle"),
    ],
)
def test_handle_of_nothing_is_refused(regions, handle, text):
    """By its size, or by CUDA."""
    code, said = refused(regions, "gpu", handle, 0, 8)
    assert (code, text in said) == (status.INVALID, True), said


@pytest.mark.skipif(HAS_CUDA, reason="this machine has CUDA's runtime")
def test_registration_without_cuda_is_refused():
    """Again and again, with what the loader says of each library that it could have been."""
    regions = SharedMemory()
    for _ in range(2):
        code, said = refused(regions, "gpu", bytes(HANDLE_BYTES), 0, 8)
        assert code == status.INVALID
        assert said.startswith("CUDA shared memory region 'gpu' cannot be registered: this server has no CUDA: ")


def test_library_that_is_none_of_cudas_is_refused(tmp_path):
    """With the loader's own words."""
    with pytest.raises(CudaError, match="cannot open shared object file"):
        CudaRuntime(str(tmp_path / "libcudart.so"))
    with pytest.raises(CudaError, match="cudaGetErrorString"):
        CudaRuntime("libc.so.6")
