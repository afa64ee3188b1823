"""Probes, before anything is compiled, for what the kernels need of this machine; what is missing is named."""

import subprocess
import sysconfig
import tempfile
from pathlib import Path

from setuptools.errors import CompileError, LinkError

# By Debian package: a header, a library, and a function that every version of it has.
PACKAGES = {
    "libnghttp2-dev": ("nghttp2/nghttp2.h", "nghttp2", "nghttp2_version"),
    "libssl-dev": ("openssl/ssl.h", "ssl", "TLS_server_method"),
    "zlib1g-dev": ("zlib.h", "z", "zlibVersion"),
}
# By function: the attack that it stops, and the first upstream version that has it. Debian's security updates brought
# both to 1.52, so that no version number tells.
DEFENCES = {
    "nghttp2_option_set_stream_reset_rate_limit": ("rapid reset, CVE-2023-44487", "1.57"),
    "nghttp2_option_set_max_continuations": ("a flood of CONTINUATION frames, CVE-2024-28182", "1.61"),
}


class NeedError(Exception):
    """This machine lacks what the kernels need to be built; the text says what to install."""


def check_needs(compiler) -> None:
    """Raise NeedError unless this compiler, with its flags, can build the kernels and link them."""
    _check_compiler(compiler.compiler_so[0])
    missing = [package for package, place in PACKAGES.items() if not _links(compiler, *place)]
    if missing:
        raise NeedError(f"The kernels need libraries and their headers. On Debian: apt-get install {' '.join(missing)}")
    # Declared by OpenSSL's headers, and held by its library, since 3.0.
    if not _links(compiler, "openssl/crypto.h", "crypto", "OPENSSL_version_major"):
        raise NeedError(
            "The kernels need OpenSSL 3.0 or later, which Debian 12 and Ubuntu 22.04 have: apt-get install libssl-dev"
        )
    for function, (attack, version) in DEFENCES.items():
        if not _links(compiler, "nghttp2/nghttp2.h", "nghttp2", function):
            raise NeedError(
                f"This libnghttp2 has no {function}, without which one client could exhaust the server ({attack}). "
                f"Needed is nghttp2 {version} or later, or Debian 12's 1.52 with its security updates: "
                "apt-get install libnghttp2-dev"
            )


def _check_compiler(executable: str) -> None:
    try:
        subprocess.run([executable, "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise NeedError(f"No C compiler ({executable}). On Debian: apt-get install gcc libc6-dev") from None
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        raise NeedError(f"No Python headers in {include}. On Debian: apt-get install python3-dev")


def _links(compiler, header: str, library: str, function: str) -> bool:
    """Whether a header declares a function and a library holds it; the compiler itself says what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(f"#include <{header}>\nvoid *probe(void) {{ return (void *)&{function}; }}\n")
        try:
            objects = compiler.compile([str(source)], output_dir=folder)
            # A shared object, as the kernels are: distutils gives LDFLAGS to nothing else.
            compiler.link_shared_object(
                objects, "probe.so", output_dir=folder, libraries=[library], extra_postargs=["-Wl,--no-undefined"]
            )
        except (CompileError, LinkError):
            return False
    return True
