"""Finds and loads the CUDA libraries that ONNX Runtime's GPU providers need, from where pip puts them.

The wheels of NVIDIA lie in site-packages/nvidia, which no loader searches. A library that is loaded already satisfies
whoever needs it by its name, so that LD_LIBRARY_PATH need not be set, which must be before a process starts.
"""

import ctypes
import importlib.util
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from kernels.runtime import find_library
from kernels.shared_object import read_needed

PROVIDERS = {"CUDA": "libonnxruntime_providers_cuda.so", "TensorRT": "libonnxruntime_providers_tensorrt.so"}
# Packages that hold libraries: NVIDIA's wheels, and TensorRT's.
PACKAGES = ("nvidia", "tensorrt_libs")
# Loaded with a name of their own by libraries that are needed, instead of being needed themselves.
LOADED_LATER = ("libnvJitLink", "libcudnn_graph", "libcudnn_ops", "libcudnn_cnn", "libcudnn_adv")
COMES_WITH = {"libcuda.so.1": "the driver of the GPU", "libnvinfer": "pip install tensorrt"}
COMES_BY_DEFAULT = "pip install 'sluice-serving[gpu]'"

_lock = threading.Lock()
_loaded: dict[str, ctypes.CDLL] = {}


@dataclass(frozen=True)
class CudaLibrary:
    """A library that a provider needs.

    Attributes
    ----------
    path
        Where it was found; None where only the system's loader may know it.
    problem
        Why it cannot be loaded; empty when it can.
    remedy
        What brings it.
    """

    name: str
    path: Path | None
    problem: str = ""
    remedy: str = ""


def load_cuda_libraries(provider: str = "CUDA") -> list[CudaLibrary]:
    """Load what a provider needs, as far as it is there, and keep it; again and again gives the same.

    Returns
    -------
    list of CudaLibrary
        In the order of need; empty when the installed ONNX Runtime has no such provider.
    """
    file = find_provider(provider)
    if file is None:
        return []
    folders = list_folders()
    with _lock:
        for stem in LOADED_LATER:
            for path in _find(folders, stem + ".so.*"):
                _load(path.name, path)
        return [_load_needed(name, folders) for name in read_needed(file) if is_of_cuda(name)]


def find_provider(provider: str) -> Path | None:
    """Return the provider's own library beside ONNX Runtime's, if it is there."""
    file = Path(find_library()).parent / PROVIDERS[provider]
    return file if file.exists() else None


def list_folders() -> list[Path]:
    """Folders of the installed packages in which libraries of CUDA lie."""
    found = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        roots = list(spec.submodule_search_locations or []) if spec is not None else []
        found += [folder for root in roots for folder in (Path(root), *Path(root).glob("*/lib"))]
    return [folder for folder in found if any(folder.glob("lib*.so*"))]


def is_of_cuda(name: str) -> bool:
    """Tell whether a library is NVIDIA's: what every Linux has needs no help."""
    return name.startswith(("libcu", "libnv", "libcudnn"))


def _load_needed(name: str, folders: list[Path]) -> CudaLibrary:
    path = next(iter(_find(folders, name)), None)
    problem = _load(name, path)
    remedy = next((text for stem, text in COMES_WITH.items() if name.startswith(stem)), COMES_BY_DEFAULT)
    return CudaLibrary(name, path, problem, remedy if problem else "")


def _find(folders: list[Path], pattern: str) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob(pattern))


def _load(name: str, path: Path | None) -> str:
    """Load a library once and for all; return why not, or nothing."""
    if name in _loaded:
        return ""
    try:
        _loaded[name] = ctypes.CDLL(str(path or name), mode=os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return ""
