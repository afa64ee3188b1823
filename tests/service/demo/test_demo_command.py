"""`sluice demo` as a user runs it: the real service behind the real Envoy, and every command that it prints."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from service.client import Client, Credentials
from tests.free_ports import find_free_port

ROOT = Path(__file__).parents[3]
CLI = "from service.cli import main; main()"
ANSWER = r"version [12] reads a scan of (\d) as \1\n"
END_OF_START = "Ctrl-C drains and stops."


def make_command(*options):
    """The command line on free ports."""
    ports = [(f"--{name}-port", str(find_free_port())) for name in ("gateway", "operator", "grpc")]
    return [sys.executable, "-c", CLI, "demo", *(part for pair in ports for part in pair), *options]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory; what one test has trained, the next need not."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def environment():
    """For programs that are started in that folder."""
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def demo(folder, environment):
    """A demonstration that stays up: what it printed, and its process."""
    with subprocess.Popen(
        make_command(), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = list(read_until(process.stdout, END_OF_START))
            assert END_OF_START in lines[-1], "".join(lines)
            yield "".join(lines), process
        finally:
            process.kill()


def read_until(stream, text):
    """Lines up to the one that has the text."""
    for line in stream:
        yield line
        if text in line:
            return


def list_printed(output):
    """The commands by their titles."""
    _, _, snippets = output.partition("Paste in another terminal")
    pairs = re.findall(r"^# (.+)\n((?:.+\n|\n(?!# |Stays))+)", snippets, re.MULTILINE)
    return {title: command for title, command in pairs}


def paste(demo, folder, environment, title):
    """Run what was printed under a title, as a shell does."""
    command = next(command for name, command in list_printed(demo[0]).items() if name.startswith(title))
    shell = ["bash", "-euo", "pipefail", "-c", command]
    result = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_demo_once_ends_with_zero_and_leaves_nothing_running(folder, environment):
    """It shows both splits and a shift amid traffic without a failure."""
    result = subprocess.run(
        make_command("--once"), cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for text in ("split 90/10", "split 50/50", "amid 2,700 requests, none of which failed"):
        assert text in result.stdout
    assert END_OF_START not in result.stdout
    assert find_processes(folder) == []


def test_demo_says_what_is_in_its_way(folder, environment, demo):
    """A second one in the same folder is refused by name, and the first lives on."""
    result = subprocess.run(
        make_command("--once"), cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert f"in use by another sluice, process {demo[1].pid}" in result.stderr
    assert demo[1].poll() is None


def test_printed_python_client_works(demo, folder, environment):
    """With the generated stubs."""
    assert re.fullmatch(ANSWER, paste(demo, folder, environment, "a Python client"))


def test_printed_tritonclient_works(demo, folder, environment):
    """Unchanged, and new enough: pip takes one of years ago when protobuf's versions disagree."""
    assert re.fullmatch(ANSWER, paste(demo, folder, environment, "tritonclient"))


def test_printed_sluice_commands_work(demo, folder, environment):
    """What is loaded, and a picture classified."""
    command = list_printed(demo[0])["sluice itself"]
    output = paste(demo, folder, environment, "sluice itself")
    assert Counter(re.findall(r"digits +([12]) +READY", output)) == {"1": 1, "2": 1}, command
    assert re.search(r"^label +INT64 +\[1\] +\[\d\]$", output, re.MULTILINE)


def test_printed_grpcurl_commands_work(demo, folder, environment):
    """By reflection, without proto files."""
    if shutil.which("grpcurl") is None and shutil.which("go") is None:
        pytest.skip("neither grpcurl nor Go, which installs it, is there")
    listing = paste(demo, folder, environment, "grpcurl, by reflection")
    assert "inference.GRPCInferenceService\n" in listing
    assert "rpc ModelInfer (" in listing
    answers = paste(demo, folder, environment, "grpcurl, inference and health")
    assert '"raw_output_contents"' in answers
    assert '"SERVING"' in answers


def test_printed_shift_takes_effect(demo, folder, environment):
    """Envoy answers OK, and the next requests follow."""
    assert paste(demo, folder, environment, "shift the traffic") == "OK\n"
    scan = np.load(folder / ".sluice" / "samples" / "digit.npy")
    with Client(find_gateway(demo), Credentials.of_state(folder / ".sluice")) as client:
        versions = Counter(client.infer("digits", {"input": scan}).version for _ in range(400))
    # Five deviations of a binomial.
    assert abs(versions["2"] - 320) <= 5 * (400 * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize("name", ["infer_digits.py", "infer_digits_tritonclient.py"])
def test_example_client_reads_the_sample(demo, folder, environment, name):
    """A batch of two of the same scan gets the same label twice."""
    scan = np.load(folder / ".sluice" / "samples" / "digit.npy")
    np.save(folder / "two.npy", np.concatenate([scan, scan]))
    output = run_example(folder, environment, name, "two.npy", "--gateway", find_gateway(demo))
    assert re.fullmatch(r"(version [12]: (\d).*\n)\1", output)
    label = re.search(r"a scan of (\d)", demo[0])[1]
    assert f": {label}" in output


def test_example_shift_moves_all_traffic(demo, folder, environment):
    """The last step leaves nothing to version 1."""
    port = re.search(r"https://127\.0\.0\.1:(\d+)/runtime_modify", demo[0])[1]
    output = run_example(
        folder, environment, "shift_traffic.py", "--gateway", find_gateway(demo), "--operator-port", port
    )
    assert output.splitlines()[-1] == "weights 0/100: version 1 answered 0, version 2 500"


def run_example(folder, environment, name, *arguments):
    """What an example prints, run beside the demonstration."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def find_gateway(demo):
    """Where clients go, as the demonstration says."""
    return re.search(r"^gateway +(\S+),", demo[0], re.MULTILINE)[1]


def test_demo_ends_at_a_signal_with_zero(demo, folder):
    """Everything was shown, so this is its regular end; no process stays."""
    process = demo[1]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert find_processes(folder) == []


def find_processes(folder):
    """Command lines of processes whose working directory or arguments lie in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            is_inside = Path(os.readlink(entry / "cwd")).is_relative_to(folder)
        except OSError:
            continue
        if is_inside or str(folder) in arguments:
            found.append(arguments)
    return found
