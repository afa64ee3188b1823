"""The native transport's settings."""

from dataclasses import replace

from kernels.limits import Limits
from service.native_server import read_limits
from service.settings import load_settings


def test_limits_are_settings_of_the_same_name_and_defaults_else(tmp_path):
    """A limit is made settable by a row of its name in the table."""
    settings = load_settings(flags={"model_repository": str(tmp_path), "insecure": True, "max_message_bytes": "4096"})
    assert read_limits(settings) == replace(Limits(), max_message_bytes=4096)
