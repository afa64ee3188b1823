"""What a build with a sanitizer cannot be asked."""

import os

import pytest


def skip_under_sanitizers(reason):
    """A mark for tests that are for builds without one."""
    return pytest.mark.skipif("san.so" in os.environ.get("LD_PRELOAD", ""), reason=reason)
