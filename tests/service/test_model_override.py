"""Files that a client brings: laid out for the load alone, and nowhere else."""

import stat

import pytest

from service.model_override import lay_out_files
from service.status import InvalidArgumentError


def test_lay_out_files_gives_a_folder_that_is_gone_afterwards():
    """Private while it is there."""
    files = {"1/model.onnx": b"one", "12/model.onnx": b"two", "warmup/row": b"x", "labels.txt": b"a"}
    with lay_out_files("echo", files) as folder:
        assert (folder.name, list(folder.versions), folder.problem) == ("echo", [1, 12], "")
        assert {path: (folder.path / path).read_bytes() for path in files} == files
        assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700
    assert not folder.path.parent.exists()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../other/1/model.onnx",
        "1/../../x",
        "1//x",
        "1/",
        "./1/x",
        ".hidden",
        "1/a b",
        "1/\0",
        "1\\x",
        "1/" + "x" * 129,
        "a/b/c/d/e",
        "config.pbtxt",
    ],
)
def test_lay_out_files_with_path_that_is_none_is_refused(path):
    """Names only, and none that means another place."""
    with pytest.raises(InvalidArgumentError, match="expected"), lay_out_files("echo", {path: b""}):
        raise AssertionError("laid out")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp", "a b"])
def test_lay_out_files_with_name_that_is_none_is_refused(name):
    """The model's name becomes a folder's."""
    with pytest.raises(InvalidArgumentError, match="model_name"), lay_out_files(name, {"1/model.onnx": b""}):
        raise AssertionError("laid out")


def test_lay_out_files_that_exclude_each_other_is_refused():
    """A file cannot be a folder."""
    with pytest.raises(InvalidArgumentError, match="cannot be laid out"), lay_out_files("e", {"1": b"", "1/x": b""}):
        raise AssertionError("laid out")
