"""The files that traces go to: Triton's form, complete at any time."""

import json

from kernels.trace import Trace
from service.trace_file import TraceFile

NAMES = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END"]


def make_traces(first, count):
    """Traces whose ids count on."""
    return [Trace("tiny", 3, str(number), 1, 2, 3, 4, 5) for number in range(first, first + count)]


def read_ids(path):
    """The request ids of a file, in its order."""
    return [entry["request_id"] for entry in json.loads(path.read_text()) if "request_id" in entry]


def test_file_is_in_tritons_form(tmp_path):
    """Two entries a trace, by one id: the model, and the moments in their order."""
    file = TraceFile(tmp_path / "trace.json")
    file.append([Trace("tiny", 3, "", 10, 20, 30, 40, 50), *make_traces(7, 1)], 0)
    model, times, other, _ = json.loads((tmp_path / "trace.json").read_text())
    assert model == {"id": 1, "model_name": "tiny", "model_version": 3}
    assert other == {"id": 2, "model_name": "tiny", "model_version": 3, "request_id": "7"}
    assert times["id"] == 1
    assert [moment["name"] for moment in times["timestamps"]] == [*NAMES, "REQUEST_END"]
    assert [moment["ns"] for moment in times["timestamps"]] == [10, 10, 20, 30, 40, 50, 50]
    file.close()


def test_file_is_complete_after_every_append(tmp_path):
    """Whoever reads it amid serving finds an array."""
    file, path = TraceFile(tmp_path / "trace.json"), tmp_path / "trace.json"
    file.append([], 0)
    assert not path.exists()
    for first in range(0, 12, 3):
        file.append(make_traces(first, 3), 0)
        assert read_ids(path) == [str(number) for number in range(first + 3)]
    file.close()


def test_files_of_so_many_traces_are_numbered(tmp_path):
    """Each gets its share, over several appends and within one."""
    file = TraceFile(tmp_path / "trace.json")
    file.append(make_traces(0, 3), 2)
    file.append(make_traces(3, 4), 2)
    found = [read_ids(tmp_path / f"trace.json.{number}") for number in range(4)]
    assert found == [["0", "1"], ["2", "3"], ["4", "5"], ["6"]]
    assert len(list(tmp_path.iterdir())) == 4
    file.close()


def test_file_is_its_owners_and_no_link_is_followed(tmp_path):
    """Ids may be anybody's names, and a link would choose what is overwritten."""
    file = TraceFile(tmp_path / "trace.json")
    file.append(make_traces(0, 1), 0)
    assert (tmp_path / "trace.json").stat().st_mode & 0o777 == 0o600
    file.close()
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    file = TraceFile(tmp_path / "link")
    file.append(make_traces(0, 1), 0)
    file.close()
    assert (tmp_path / "victim").read_text() == "kept"
    assert read_ids(tmp_path / "link") == ["0"]
