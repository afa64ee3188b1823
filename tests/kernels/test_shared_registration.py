"""kernels.shared_memory: which regions can be registered."""

import os

import pytest
from memory_objects import FOLDER, MemoryObject, open_descriptors

from kernels import status
from kernels.shared_memory import SharedMemory, SharedMemoryError


@pytest.fixture
def memory():
    """An object of 256 bytes, of which each is its own number."""
    with MemoryObject(bytes(range(256))) as made:
        yield made


def refused(regions, *arguments):
    """Code and text of a registration that must fail."""
    with pytest.raises(SharedMemoryError) as refusal:
        regions.register(*arguments)
    return refusal.value.code, str(refusal.value)


def test_region_is_known_until_it_is_unregistered(memory):
    """By its name; with what it was registered with."""
    regions = SharedMemory()
    regions.register("one", memory.key, 16, 32)
    regions.register("two", memory.key.lstrip("/"), 0, 256)
    assert regions.regions() == {"one": (memory.key, 16, 32), "two": (memory.key[1:], 0, 256)}
    regions.unregister("one")
    regions.unregister("one")
    assert list(regions.regions()) == ["two"]
    regions.unregister_all()
    assert regions.regions() == {}
    assert open_descriptors(memory.path) == 0


def test_name_that_is_taken_is_refused_and_free_again_after_unregistering(memory):
    """The same object or another: a request must know what it names."""
    regions = SharedMemory()
    regions.register("taken", memory.key, 0, 8)
    code, text = refused(regions, "taken", memory.key, 0, 8)
    assert (code, text) == (status.ALREADY_EXISTS, "shared memory region 'taken' is registered already")
    assert open_descriptors(memory.path) == 1
    regions.unregister("taken")
    regions.register("taken", memory.key, 8, 8)
    assert regions.regions()["taken"] == (memory.key, 8, 8)


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "/..", ".", "../etc/passwd", "/../etc/passwd", "a/b", "/a/b", "//a//b", "a\0b", "x" * 300],
)
def test_key_that_leads_elsewhere_is_refused(key):
    """Nothing but the name of one object."""
    code, text = refused(SharedMemory(), "region", key, 0, 1)
    assert code == status.INVALID
    assert text.startswith("key: expected the name of one shared memory object")


@pytest.mark.parametrize("key", ["triton_python_backend_shm_region_1", "/sem.lock"])
def test_reserved_key_is_refused(key):
    """Triton's own objects, and semaphores."""
    code, text = refused(SharedMemory(), "region", key, 0, 1)
    assert (code, "reserved prefix" in text) == (status.INVALID, True)


def test_key_that_is_no_plain_object_is_refused(tmp_path, memory):
    """Missing, a link, a pipe, a folder; none of them keeps the server waiting."""
    names = [f"{memory.key[1:]}-{kind}" for kind in ("missing", "link", "pipe", "folder")]
    link, pipe, folder = (FOLDER / name for name in names[1:])
    (tmp_path / "secret").write_bytes(b"secret")
    link.symlink_to(tmp_path / "secret")
    os.mkfifo(pipe)
    folder.mkdir()
    try:
        for name in names:
            code, text = refused(SharedMemory(), "region", name, 0, 1)
            assert (code, text.startswith("key: ")) == (status.INVALID, True)
    finally:
        link.unlink()
        pipe.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 257),
        (256, 1),
        (255, 2),
        (2**63 - 1, 1),
        (1, 2**63 - 1),
        (2**63, 1),
        (2**64 - 1, 2),
        (0, 0),
        (2**64 - 256, 512),
    ],
)
def test_region_beyond_its_object_is_refused(memory, offset, size):
    """Also where the sum would not fit 64 bits."""
    code, text = refused(SharedMemory(), "region", memory.key, offset, size)
    assert (code, text.startswith("byte_size")) == (status.INVALID, True)
    assert open_descriptors(memory.path) == 0


@pytest.mark.parametrize("name", ["", "n" * 256])
def test_region_of_no_name_or_a_long_one_is_refused(memory, name):
    """A name takes up to 255 bytes."""
    assert refused(SharedMemory(), name, memory.key, 0, 1)[0] == status.INVALID


def test_regions_are_bounded(memory):
    """Each holds a descriptor; one more than there may be is refused, and room is made by unregistering."""
    regions = SharedMemory()
    for index in range(1024):
        regions.register(f"region-{index}", memory.key, 0, 1)
    assert refused(regions, "more", memory.key, 0, 1)[0] == status.EXHAUSTED
    regions.unregister("region-512")
    regions.register("more", memory.key, 0, 1)
    assert len(regions.regions()) == 1024
