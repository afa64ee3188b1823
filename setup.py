"""Builds the compiled kernels; everything else about the package is declared in pyproject.toml."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A build by pip does not import from the folder that it builds.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_probes import NeedError, check_needs

DEBUG = os.environ.get("KERNELS_DEBUG") == "1"
SANITIZER = os.environ.get("KERNELS_SANITIZE", "")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "nonecheck": DEBUG,
}

COMPILE_ARGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-sign-compare", "-Wno-cpp", "-pthread"]
# Cython's own boilerplate for metaclass and coroutine support is unused in most modules.
COMPILE_ARGS += ["-Wno-unused-function", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
LINK_ARGS = ["-pthread"]

if DEBUG or SANITIZER:
    COMPILE_ARGS += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG"]
else:
    COMPILE_ARGS += ["-O3", "-fno-plt", "-fno-semantic-interposition", "-fvisibility=hidden", "-g0"]
if os.environ.get("KERNELS_WERROR") == "1":
    COMPILE_ARGS += ["-Werror"]
if SANITIZER:
    if SANITIZER not in ("address", "thread"):
        sys.exit(f"KERNELS_SANITIZE is {SANITIZER!r}; expected 'address' or 'thread'")
    flags = ["-fsanitize=address,undefined"] if SANITIZER == "address" else ["-fsanitize=thread"]
    COMPILE_ARGS += flags
    LINK_ARGS += flags
if os.environ.get("KERNELS_COVERAGE") == "1":
    # Calls fuzz/coverage.c in every basic block; whoever imports such a build has that preloaded.
    COMPILE_ARGS += ["-fsanitize-coverage=trace-pc"]


class KernelBuild(build_ext):
    """Stops with the command to type where the machine lacks what the kernels need, before anything takes long."""

    def build_extensions(self):
        """Check what the build needs, have Cython write C, then compile it."""
        try:
            check_needs(self.compiler)
        except NeedError as error:
            sys.exit(str(error))
        for extension in self.extensions:
            extension.sources = write_c(extension, self.force)
        super().build_extensions()


def write_c(extension, force):
    """Have Cython write a kernel's C where it is older than what it is made from; returns where it is."""
    (written,) = cythonize(
        extension,
        force=force,
        compiler_directives=DIRECTIVES,
        build_dir=os.environ.get("KERNELS_BUILD_DIR", "build/cython"),
        annotate=os.environ.get("KERNELS_ANNOTATE") == "1",
    )
    return written.sources


# What a kernel is linked with beside libdl.
LIBRARIES = {
    "http2": ["nghttp2"],
    "reply": ["nghttp2"],
    "connection": ["nghttp2", "ssl", "crypto"],
    "handshake": ["ssl", "crypto"],
    "sweep": ["nghttp2"],
    "transport": ["nghttp2"],
    "tls": ["ssl", "crypto"],
    "tls_peer": ["ssl", "crypto"],
    "compression": ["z"],
    "response_cache": ["crypto"],
    "idempotency": ["crypto"],
    "caller_key": ["crypto"],
    "call_keys": ["crypto"],
}


def kernel_extensions():
    """One extension per kernels/*.pyx, rebuilt when a header of ours or a flag changes."""
    headers = sorted(str(path) for path in Path("kernels").glob("*.h"))
    return [
        Extension(
            f"kernels.{source.stem}",
            [str(source)],
            depends=[*headers, "setup.py"],
            include_dirs=["kernels"],
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=LINK_ARGS,
            libraries=["dl", *LIBRARIES.get(source.stem, [])],
        )
        for source in sorted(Path("kernels").glob("*.pyx"))
    ]


setup(cmdclass={"build_ext": KernelBuild}, ext_modules=kernel_extensions())
