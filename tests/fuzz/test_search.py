"""fuzz.search: finds by coverage what chance does not find, and says what became of an input."""

import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from fuzz import subject as subject_module
from fuzz.edges import EdgeMap
from fuzz.finding import Finding
from fuzz.leak import find_leak
from fuzz.mutation.plain import BytesMutator
from fuzz.search import Budget, Search
from fuzz.subject import Build, Subject

ROOT = Path(__file__).parents[2]
TARGET = "tests.fuzz.planted_target:PlantedTarget"
CRASH, HANG = b"\xb0\x00\x00\xc0\xa0", b"\xb0\x00\x00\xc0\xb0"
SHARED = ["-shared", "-fPIC", "-O0", "-Wall", "-Wextra", "-Werror"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The runtime of the coverage, and the planted bug built for it."""
    folder = tmp_path_factory.mktemp("libraries")
    compile_c(ROOT / "fuzz/coverage.c", folder / "coverage.so")
    compile_c(ROOT / "tests/fuzz/planted.c", folder / "planted.so", "-fsanitize-coverage=trace-pc")
    return folder


def compile_c(source, library, *options):
    """Make a library of one source."""
    subprocess.run(["gcc", *SHARED, *options, "-o", library, source], check=True)


@pytest.fixture
def start(libraries, tmp_path, monkeypatch):
    """Start processes that run the planted bug: start() gives a Subject and the map of its edges."""
    monkeypatch.setenv("PLANTED", str(libraries / "planted.so"))
    started = []

    def start_subject():
        edges = EdgeMap(tmp_path / "edges")
        started.append(Subject(Build(ROOT, coverage=libraries / "coverage.so"), TARGET, tmp_path))
        return started[-1], edges

    yield start_subject
    for subject in started:
        subject.stop()


class UnguidedMap(EdgeMap):
    """A map in which nothing is ever new."""

    def read_new(self):
        """Nothing."""
        return {}


def test_search_finds_a_planted_bug_by_its_edges(start, tmp_path):
    """Byte after byte; as many blind changes do not come across it."""
    subject, edges = start()
    guided = Search(subject, edges, BytesMutator(), seed=1, max_findings=1)
    guided.run([b"hello"], Budget(seconds=60))
    assert [[byte >> 4 for byte in found.data[:5]] for found in guided.findings] == [[0xB, 0, 0, 0xC, 0xA]]
    assert guided.findings[0].text.startswith("ended with -6")
    blind = Search(subject, UnguidedMap(tmp_path / "edges"), BytesMutator(), seed=1)
    blind.run([b"hello"], Budget(runs=guided.runs))
    assert blind.findings == []


def test_search_with_the_same_seed_does_the_same(start):
    """The inputs that are kept are the same, in another process too."""
    kept = []
    for _ in range(2):
        subject, edges = start()
        search = Search(subject, edges, BytesMutator(), seed=7)
        search.run([b"hello"], Budget(runs=1500))
        kept.append(search.corpus.inputs)
    assert kept[0] == kept[1]
    assert len(kept[0]) > 1


def test_process_that_died_is_replaced(start):
    """The next input meets a new one."""
    subject, _ = start()
    assert subject.run(CRASH).startswith("ended with -6")
    assert subject.run(b"hello") == ""


def test_input_that_hangs_is_cut_off(start, monkeypatch):
    """And reported; the next input meets a new process."""
    monkeypatch.setattr(subject_module, "TIMEOUT_S", 0.5)
    subject, _ = start()
    assert subject.run(HANG) == "hang: no answer in 0.5 s"
    assert subject.run(b"hello") == ""


def test_broken_promise_is_reported_without_an_end(start):
    """What a target raises is what its input has shown."""
    subject, _ = start()
    assert subject.run(b"promise") == "a promise was broken"


def test_leak_is_found_in_what_is_done_over_and_over():
    """Memory that each run leaves behind, but not what is kept once."""
    kept, once = [], {}
    with pytest.raises(Finding, match="leak: 100 runs"):
        find_leak(lambda: kept.append(object()))
    find_leak(lambda: once.setdefault("key", object()))


@pytest.mark.parametrize("count", [1, 30])
def test_change_of_bytes_depends_on_the_seed_alone(count):
    """The same seed, the same bytes."""
    changed = [
        [BytesMutator().mutate(b"hello", b"other", random) for _ in range(count)] for random in map(Random, (3, 3))
    ]
    assert changed[0] == changed[1]
