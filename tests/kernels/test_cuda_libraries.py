"""kernels.cuda_libraries and kernels.shared_object: what a provider needs, found where pip puts it."""

import subprocess
import sys
from pathlib import Path

import pytest

from kernels import cuda_libraries, engine
from kernels.cuda_libraries import CudaLibrary, find_provider, load_cuda_libraries
from kernels.providers import available_providers
from kernels.runtime import find_library
from kernels.shared_object import read_needed

HAS_CUDA = "CUDAExecutionProvider" in available_providers()
SOURCE = "int {name}(void) {{ return 0; }}\n"


def compile_library(path, *links):
    """A shared library with that file name, which needs others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.parent / "source.c"
    source.write_text(SOURCE.format(name=path.name.partition(".")[0]))
    command = ["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{path.name}", "-o", path, source, *links]
    subprocess.run([str(part) for part in command], check=True)
    return path


@pytest.mark.parametrize("path", [find_library(), Path(engine.__file__)], ids=["onnxruntime", "kernel"])
def test_needed_libraries_are_those_that_the_loader_would_look_for(path):
    """As the system's own reader of such files says."""
    said = subprocess.run(["readelf", "-d", str(path)], check=True, capture_output=True, text=True).stdout
    expected = [line.split("[")[1].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    assert read_needed(path) == expected
    assert "libc.so.6" in expected


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x01\x01" + bytes(64), b"#!/bin/sh\n" + bytes(64)])
def test_needed_libraries_of_another_file_are_refused(tmp_path, content):
    """Which file it was is said."""
    path = tmp_path / "other.so"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.so is no 64-bit little-endian ELF file"):
        read_needed(path)


@pytest.mark.skipif(HAS_CUDA, reason="the installed ONNX Runtime has the CUDA provider")
def test_library_without_provider_needs_nothing():
    """Neither file nor libraries."""
    assert find_provider("CUDA") is None
    assert load_cuda_libraries("CUDA") == []


@pytest.mark.skipif(not HAS_CUDA, reason="the installed ONNX Runtime has no CUDA provider")
def test_libraries_of_the_wheels_are_found():
    """Without LD_LIBRARY_PATH, all but the driver's own."""
    assert [library for library in load_cuda_libraries() if library.problem and library.name != "libcuda.so.1"] == []


def test_libraries_are_loaded_from_where_pip_puts_them(tmp_path):
    """One of a wheel satisfies the provider, which is then loaded by a loader that knows no such folder.

    In a process of its own: what was loaded stays.
    """
    cudart = compile_library(tmp_path / "site" / "nvidia" / "cu13" / "lib" / "libcudart.so.13")
    provider = compile_library(tmp_path / "capi" / "libonnxruntime_providers_cuda.so", cudart)
    absent = compile_library(tmp_path / "elsewhere" / "libcublas.so.13")
    other = compile_library(tmp_path / "capi" / "libonnxruntime_providers_tensorrt.so", absent)
    program = f"""
import ctypes, json, sys
from pathlib import Path
sys.path.insert(0, {str(tmp_path / "site")!r})
from kernels import cuda_libraries
cuda_libraries.find_library = lambda: Path({str(tmp_path / "capi" / "libonnxruntime.so")!r})
[found] = cuda_libraries.load_cuda_libraries("CUDA")
assert (found.name, str(found.path), found.problem) == ("libcudart.so.13", {str(cudart)!r}, ""), found
ctypes.CDLL({str(provider)!r})
[missing] = cuda_libraries.load_cuda_libraries("TensorRT")
assert missing.path is None and "cannot open shared object file" in missing.problem, missing
assert missing.remedy == cuda_libraries.COMES_BY_DEFAULT
try:
    ctypes.CDLL({str(other)!r})
except OSError as error:
    assert "libcublas.so.13" in str(error)
else:
    raise AssertionError("nobody provides libcublas.so.13")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_provider_has_a_file_name():
    """As ONNX Runtime's wheels name them."""
    assert set(cuda_libraries.PROVIDERS) == {"CUDA", "TensorRT"}
    assert CudaLibrary("libcudart.so.13", None).problem == ""
