"""Sets the C library's allocator up for large messages: few arenas, and no memory given back to be taken again."""

import ctypes
import os

# glibc's numbers of the options, from malloc.h, and their variables, which an operator may have set.
M_TRIM_THRESHOLD, TRIM_VARIABLE = -1, "MALLOC_TRIM_THRESHOLD_"
M_MMAP_THRESHOLD, MMAP_VARIABLE = -3, "MALLOC_MMAP_THRESHOLD_"
M_ARENA_MAX, ARENA_VARIABLE = -8, "MALLOC_ARENA_MAX"
# By default there are eight a processor, each of which keeps the largest messages it ever held: the resident size goes
# up in steps for as long as there is traffic. With two it levels off, at the same CPU time (bench: memory).
ARENAS = 2
# By default the heap's end is given back to the system as soon as 128 KiB of it are free, and a message above that is
# mapped for itself: with 600 KB in and out, page faults were half of the system's time (bench: transport.tensors).
# malloc_trim, which the transport calls after a while without large messages, leaves the end of the second arena alone,
# so that up to so much stays resident there.
KEPT_BYTES = 64 * 2**20
MAPPED_BYTES = 8 * 2**20

OPTIONS = (
    (ARENA_VARIABLE, M_ARENA_MAX, ARENAS),
    (TRIM_VARIABLE, M_TRIM_THRESHOLD, KEPT_BYTES),
    (MMAP_VARIABLE, M_MMAP_THRESHOLD, MAPPED_BYTES),
)


class AllocatorError(Exception):
    """The allocator does not say what was asked for; the text says why."""


def tune_allocator() -> bool:
    """Share a few arenas among all threads and keep freed memory; must come before threads are started.

    Returns
    -------
    bool
        Whether every option took effect: False where the C library has none, or the environment has decided one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([variable not in os.environ and mallopt(option, value) == 1 for variable, option, value in OPTIONS])


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def read_allocated_bytes() -> int:
    """The bytes that C code has allocated and not freed: what is mapped for itself, and what is not in all arenas.

    Unlike the resident size it falls as soon as something is freed, and does not rise for what is kept for the next.

    Raises
    ------
    AllocatorError
        The process's allocator is not glibc's.
    """
    library = ctypes.CDLL(None)
    read = getattr(library, "mallinfo2", None)
    if read is None:
        raise AllocatorError("the C library does not say how much memory is allocated (mallinfo2)")
    read.restype = _MallocInfo
    info = read()
    if info.uordblks + info.hblkhd == 0:
        raise AllocatorError("the process's memory is another allocator's than the C library's own")
    return info.uordblks + info.hblkhd


def release_memory() -> None:
    """Give back to the system what is free anywhere in the heap, as after unloading a model; takes milliseconds.

    What is kept for messages is a part of the heap's end, while a model's freed weights lie in its midst.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
