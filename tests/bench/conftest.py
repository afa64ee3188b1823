"""What the tests of bench share: its C programs, where there is something to compile them with."""

import pytest

from bench.processes import BenchError
from bench.programs import PROGRAMS, compile_program


@pytest.fixture(scope="session")
def native_programs():
    """The programs of bench/native, compiled; what the machine lacks for that skips the test and is named."""
    try:
        for name in PROGRAMS:
            compile_program(name)
    except BenchError as error:
        if "apt-get install" not in str(error):
            raise
        pytest.skip(str(error))
