"""service.allocator: the option is taken by glibc, and an operator's own choice stands."""

import platform

import pytest

from service.allocator import ARENA_VARIABLE, bound_arenas

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@needs_glibc
def test_arenas_are_bounded(monkeypatch):
    """glibc takes the option."""
    monkeypatch.delenv(ARENA_VARIABLE, raising=False)
    assert bound_arenas()


def test_arenas_of_the_environment_stand(monkeypatch):
    """Who has set the variable has decided."""
    monkeypatch.setenv(ARENA_VARIABLE, "8")
    assert not bound_arenas()
