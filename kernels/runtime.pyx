"""Finds and opens ONNX Runtime's shared library and makes the process's one environment.

The library is the file inside the installed onnxruntime (or onnxruntime-gpu) package; the package itself is never
imported, so that a serving process holds no second copy of its state and starts without its Python.
"""

import importlib.util
import os
import re
import threading
from pathlib import Path

from libc.stdio cimport snprintf
from libc.string cimport strstr

from kernels.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlerror, dlopen, dlsym
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.ort cimport *
from kernels.status cimport EXHAUSTED, INTERNAL, INVALID

cdef enum:
    SEVERITY_FATAL = 4     # what fails is told to whoever asked; a second line on stderr would only be noise
    ORT_STATUS_INVALID_ARGUMENT = 2
    ORT_ARENA_ALLOCATOR = 1
    ORT_MEMORY_DEFAULT = 0

# Where in ONNX Runtime's own source an error arose: a path, a line and a C++ signature, of no use to anybody else.
SOURCE_PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\)(?: const)?(?: \[with .*?\])? (?=\S)")

cdef ort_runtime _runtime
_lock = threading.Lock()
_options = {"intra_op_threads": 0, "inter_op_threads": 1, "spin": False}


class RuntimeLibraryError(Exception):
    """ONNX Runtime's library is missing, too old, or was configured twice."""


def configure_runtime(*, intra_op_threads=0, inter_op_threads=1, spin=False):
    """Choose the global thread pools; must come before the first session.

    Parameters
    ----------
    intra_op_threads : int
        Threads that share one operator's work; 0 is one for each processor this process may use.
    inter_op_threads : int
        Threads that run independent operators of one graph.
    spin : bool
        Whether idle pool threads spin: lower latency for a steady load, a pegged processor for a light one
        (two threads cost 5.6 ms of CPU a run against 0.55 ms at one run every 5 ms).

    Raises
    ------
    RuntimeLibraryError
        The environment exists already with other options.
    """
    options = {"intra_op_threads": intra_op_threads, "inter_op_threads": inter_op_threads, "spin": bool(spin)}
    with _lock:
        if _runtime.api != NULL and options != _options:
            raise RuntimeLibraryError(f"ONNX Runtime already runs with {_options}; {options} come too late")
        _options.update(options)


def find_library():
    """Return the path of libonnxruntime inside the installed package, without importing it."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeLibraryError("ONNX Runtime is not installed: pip install 'sluice-serving[cpu]' (or [gpu])")
    found = [
        path for folder in spec.submodule_search_locations for path in Path(folder, "capi").glob("libonnxruntime.so*")
    ]
    if not found:
        raise RuntimeLibraryError(f"the installed onnxruntime package has no capi/libonnxruntime.so ({spec.origin})")
    return max(found)


def runtime_version():
    """Return the version of the installed ONNX Runtime; RuntimeLibraryError when there is none that can be opened."""
    cdef const OrtApiBase* base = _load_base(find_library())
    return base.GetVersionString().decode()


def start_runtime():
    """Make the process's runtime, if it is not there yet; its threads get the priority of the thread that calls."""
    open_runtime()


cdef ort_runtime* open_runtime() except NULL:
    """Return the process's runtime, made on the first call. Holds the GIL."""
    with _lock:
        if _runtime.api == NULL:
            _create_runtime()
    return &_runtime


cdef const OrtApiBase* _load_base(path) except NULL:
    cdef bytes encoded = os.fsencode(path)
    cdef void* library = dlopen(encoded, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise RuntimeLibraryError(f"cannot open {path}: {dlerror().decode(errors='replace')}")
    cdef void* symbol = dlsym(library, "OrtGetApiBase")
    if symbol == NULL:
        raise RuntimeLibraryError(f"{path} does not export OrtGetApiBase")
    return (<const OrtApiBase* (*)() noexcept> symbol)()


cdef int _create_runtime() except -1:
    path = find_library()
    cdef const OrtApiBase* base = _load_base(path)
    cdef ort_table api = base.GetApi(ORT_API_VERSION_NEEDED)
    if api == NULL:
        version = base.GetVersionString().decode()
        raise RuntimeLibraryError(f"{path} is ONNX Runtime {version}; 1.{ORT_API_VERSION_NEEDED} or later is needed")
    cdef ort_runtime made
    made.api = api
    made.env = _create_env(api)
    raise_status(api, ort_CreateCpuMemoryInfo(api, ORT_ARENA_ALLOCATOR, ORT_MEMORY_DEFAULT, &made.memory))
    raise_status(api, ort_GetAllocatorWithDefaultOptions(api, &made.allocator))
    _runtime.env = made.env
    _runtime.memory = made.memory
    _runtime.allocator = made.allocator
    _runtime.api = api
    return 0


cdef OrtEnv* _create_env(ort_table api) except NULL:
    cdef OrtThreadingOptions* threading_options = NULL
    cdef OrtEnv* env = NULL
    # An explicit count: with 0 the library counts all processors and pins its threads to them, affinity or not.
    cdef int intra = _options["intra_op_threads"] or len(os.sched_getaffinity(0))
    raise_status(api, ort_CreateThreadingOptions(api, &threading_options))
    try:
        raise_status(api, ort_SetGlobalIntraOpNumThreads(api, threading_options, intra))
        raise_status(api, ort_SetGlobalInterOpNumThreads(api, threading_options, _options["inter_op_threads"]))
        raise_status(api, ort_SetGlobalSpinControl(api, threading_options, _options["spin"]))
        raise_status(api, ort_CreateEnvWithGlobalThreadPools(api, SEVERITY_FATAL, "sluice", threading_options, &env))
    finally:
        ort_ReleaseThreadingOptions(api, threading_options)
    return env


cdef int check_status(ort_table api, OrtStatus* status, failure* error) noexcept nogil:
    """Return 0, or -1 with the library's message moved into `error`; the status is freed."""
    if status == NULL:
        return 0
    cdef const char* text = ort_GetErrorMessage(api, status)
    if is_out_of_memory(text):
        error.code = EXHAUSTED
    else:
        error.code = INVALID if ort_GetErrorCode(api, status) == ORT_STATUS_INVALID_ARGUMENT else INTERNAL
    snprintf(error.text, FAILURE_TEXT_BYTES, "ONNX Runtime: %s", text)
    ort_ReleaseStatus(api, status)
    return -1


cdef bint is_out_of_memory(const char* text) noexcept nogil:
    """Tell whether an error's text is that of memory which is not there: there is no code for it.

    The arena's own words, CUDA's, those of its libraries' status names, and C++'s.
    """
    return (strstr(text, b"Failed to allocate memory") != NULL or strstr(text, b"Available memory of") != NULL
            or strstr(text, b"out of memory") != NULL or strstr(text, b"ALLOC_FAILED") != NULL
            or strstr(text, b"bad_alloc") != NULL)


cdef int raise_status(ort_table api, OrtStatus* status) except -1:
    """Raise RuntimeLibraryError with the library's whole message unless the status is a success; it is freed."""
    if status == NULL:
        return 0
    message = ort_GetErrorMessage(api, status).decode(errors="replace")
    ort_ReleaseStatus(api, status)
    raise RuntimeLibraryError(f"ONNX Runtime: {SOURCE_PLACE.sub('', message)}")


def decode_error(bytes text not None):
    """Turn the text of a failure into one for people: valid UTF-8, without places in ONNX Runtime's own source."""
    return SOURCE_PLACE.sub("", text.decode(errors="replace"))
