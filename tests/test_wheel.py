"""`make wheel`: what it packs, and that it serves where there is no compiler, no libnghttp2 and no checkout."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import onnx_models
import pytest
from free_ports import HOST, find_free_port
from fresh_environment import FreshEnvironment

ROOT = Path(__file__).parents[1]
SOURCES = {
    "kernels": ("*.py", "*.pyx", "*.pxd", "*.h"),
    "service": ("**/*.py", "**/*.pyi", "*.json"),
    "certs": ("*.py",),
    "envoy": ("*.yaml",),
}
# The kernels may all have to be compiled first, on a machine that others use too.
BUILD_TIMEOUT_S = 480
END_TIMEOUT_S = 60
UP = "Ctrl-C drains and stops."

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT_S + 120)


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder with the source distribution and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    build = subprocess.run(
        ["sh", ROOT / ".ci" / "wheel", sys.executable, folder],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    """The wheel's path."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Where the wheel is installed."""
    return FreshEnvironment(tmp_path_factory.mktemp("fresh"), wheel, "cpu")


@pytest.fixture(scope="module")
def deployment(environment):
    """A `sluice up` on the native transport that is up, and the address of its gateway; SIGTERM ends it with 0."""
    onnx_models.save(onnx_models.add_and_subtract(), environment.folder / "models", "sums")
    ports = {name: find_free_port() for name in ("gateway-port", "operator-port", "grpc-port")}
    options = [f"--{name}={port}" for name, port in ports.items()]
    command = ("sluice", "up", "--model-repository", "models", *options)
    variables = {"SLUICE_TRANSPORT": "native"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with environment.start(*command, variables=variables, **pipes) as process:
        try:
            await_up(process.stdout)
            yield process, f"{HOST}:{ports['gateway-port']}"
        finally:
            process.terminate()
            rest, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 0, rest


def await_up(output):
    """Return when a deployment says that it is up."""
    said = []
    for line in output:
        said.append(line)
        if UP in line:
            return
    raise AssertionError("".join(said))


def list_loaded(supervisor):
    """The files that the children of a process, of which one is the service, have in memory."""
    tasks = Path(f"/proc/{supervisor}/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    maps = [line.split(maxsplit=5) for pid in children for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return {Path(fields[5]) for fields in maps if len(fields) > 5}


def test_sdist_holds_every_source(dist):
    """The source distribution has every file that a build reads or packs."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        str(path.relative_to(ROOT))
        for folder, patterns in SOURCES.items()
        for pattern in patterns
        for path in (ROOT / folder).glob(pattern)
    }
    assert needed | {"setup.py", "build_probes.py", "pyproject.toml", "README.md"} <= packed


def test_wheel_brings_nghttp2_and_leaves_openssl_to_the_machine(wheel):
    """Of libraries only nghttp2 is inside, with its license, for machines whose glibc is as new as the tag says."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    (library,) = (name for name in names if name.startswith("sluice_serving.libs/lib"))
    assert "libnghttp2" in library
    assert any(name.endswith("licenses/nghttp2.txt") for name in names)
    assert "manylinux_" in wheel.name


def test_wheel_holds_every_kernel_and_no_source_of_one(wheel):
    """Each kernel is inside, compiled."""
    with zipfile.ZipFile(wheel) as archive:
        inside = [Path(name) for name in archive.namelist() if name.startswith("kernels/")]
    compiled = {path.name.partition(".")[0] for path in inside if path.suffix == ".so"}
    assert compiled == {source.stem for source in (ROOT / "kernels").glob("*.pyx")}
    assert {path.suffix for path in inside} - {"", ".py", ".so"} == set()


def test_installed_wheel_serves_through_the_gateway(environment, deployment):
    """In an empty folder `sluice up` gets ready, and the other commands reach it as they are."""
    _, gateway = deployment
    (listed,) = json.loads(environment.run("sluice", "models", "--url", gateway, "--json"))
    assert (listed["name"], listed["version"], listed["state"]) == ("sums", "1", "READY")
    inputs = ("--input", "a=[[1, 2, 3]]", "--input", "b=[[3, 2, 1]]")
    answer = json.loads(environment.run("sluice", "infer", "sums", *inputs, "--url", gateway, "--json"))
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs == {"sum": [4, 4, 4], "difference": [-2, 0, 2]}


def test_installed_wheel_loads_its_own_nghttp2_and_the_machines_openssl(environment, deployment):
    """The service runs the library that the wheel brought, whether or not the machine has another."""
    process, _ = deployment
    loaded = list_loaded(process.pid)
    (nghttp2,) = (path for path in loaded if "nghttp2" in path.name)
    assert nghttp2.parent == environment.packages / "sluice_serving.libs"
    (openssl,) = (path for path in loaded if path.name.startswith("libssl"))
    assert openssl.name == "libssl.so.3"
    assert environment.packages not in openssl.parents
    assert {path.parent for path in loaded if path.name.startswith("transport.")} == {environment.packages / "kernels"}
