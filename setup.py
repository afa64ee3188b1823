"""Builds the compiled kernels; everything else about the package is declared in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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


class KernelBuild(build_ext):
    """Stops with the command to type when the machine has no C compiler or no Python headers."""

    def run(self):
        """Check what the build needs, then build."""
        compiler = os.environ.get("CC", "cc").split()[0]
        try:
            subprocess.run([compiler, "--version"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            sys.exit(f"No C compiler ({compiler}). On Debian: apt-get install gcc libc6-dev")
        include = Path(self._python_include())
        if not (include / "Python.h").exists():
            sys.exit(f"No Python headers in {include}. On Debian: apt-get install python3-dev")
        super().run()

    @staticmethod
    def _python_include():
        import sysconfig

        return sysconfig.get_path("include")


# What a kernel is linked with beside libdl.
LIBRARIES = {
    "http2": ["nghttp2"],
    "connection": ["nghttp2", "ssl", "crypto"],
    "handshake": ["ssl", "crypto"],
    "sweep": ["nghttp2"],
    "transport": ["nghttp2"],
    "tls": ["ssl", "crypto"],
    "tls_peer": ["ssl", "crypto"],
    "compression": ["z"],
}


def kernel_extensions():
    """One extension per kernels/*.pyx, rebuilt when a header of ours changes."""
    headers = sorted(str(path) for path in Path("kernels").glob("*.h"))
    return [
        Extension(
            f"kernels.{source.stem}",
            [str(source)],
            depends=headers,
            include_dirs=["kernels"],
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=LINK_ARGS,
            libraries=["dl", *LIBRARIES.get(source.stem, [])],
        )
        for source in sorted(Path("kernels").glob("*.pyx"))
    ]


setup(
    cmdclass={"build_ext": KernelBuild},
    ext_modules=cythonize(
        kernel_extensions(),
        compiler_directives=DIRECTIVES,
        build_dir=os.environ.get("KERNELS_BUILD_DIR", "build/cython"),
        annotate=os.environ.get("KERNELS_ANNOTATE") == "1",
    ),
)
