"""service.allocator: the options are taken by glibc, and an operator's own choice stands."""

import platform

import pytest

from service.allocator import OPTIONS, tune_allocator

VARIABLES = [variable for variable, _, _ in OPTIONS]
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@pytest.fixture
def untuned(monkeypatch):
    """An environment that decides nothing."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@needs_glibc
@pytest.mark.usefixtures("untuned")
def test_options_are_taken():
    """glibc knows each."""
    assert tune_allocator()


@pytest.mark.parametrize("variable", VARIABLES)
def test_option_of_the_environment_stands(untuned, variable):
    """Who has set the variable has decided."""
    untuned.setenv(variable, "8")
    assert not tune_allocator()
