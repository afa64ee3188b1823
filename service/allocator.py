"""Keeps the C library's allocator from holding on to memory that was used once."""

import ctypes
import os

# glibc's number of the option, from malloc.h, and its variable, which an operator may have set.
M_ARENA_MAX = -8
ARENA_VARIABLE = "MALLOC_ARENA_MAX"
# By default there are eight a processor, each of which keeps the largest messages it ever held: the resident size goes
# up in steps for as long as there is traffic. With two it levels off, at the same CPU time (bench: memory).
ARENAS = 2


def bound_arenas() -> bool:
    """Share a few arenas among all threads; must come before threads are started.

    Returns
    -------
    bool
        False where the C library has no such option or the environment has decided already.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or ARENA_VARIABLE in os.environ:
        return False
    return mallopt(M_ARENA_MAX, ARENAS) == 1
