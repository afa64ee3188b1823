"""A build of the kernels on machines that lack what they need: each is refused at once, with what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from build_probes import DEFENCES

ROOT = Path(__file__).parents[1]
# Far less than compiling takes: a refusal comes before that.
REFUSAL_TIMEOUT_S = 60


def refuse(folder, **environment):
    """The last line that a build says, which must fail."""
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-temp", folder, "--build-lib", folder]
    result = subprocess.run(
        build,
        cwd=ROOT,
        env=os.environ | {"KERNELS_BUILD_DIR": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=REFUSAL_TIMEOUT_S,
        check=False,
    )
    assert result.returncode != 0
    return result.stderr.strip().splitlines()[-1]


def link_stub(folder, name, *functions):
    """LDFLAGS with which the linker finds a library of these functions alone."""
    stub = "".join(f"void {function}(void) {{}}\n" for function in functions)
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", folder / f"lib{name}.so"]
    subprocess.run(command, input=stub, text=True, check=True)
    return f"-L{folder}"


def test_build_without_compiler_names_its_package(tmp_path):
    """Without a C compiler the build names the one it looked for, and Debian's package."""
    said = refuse(tmp_path, CC="no-such-compiler")
    assert said == "No C compiler (no-such-compiler). On Debian: apt-get install gcc libc6-dev"


def test_build_without_headers_names_every_missing_package(tmp_path):
    """All that is missing is named at once, as the command to type."""
    said = refuse(tmp_path, CFLAGS="-nostdinc")
    assert said.endswith("On Debian: apt-get install libnghttp2-dev libssl-dev zlib1g-dev")


def test_build_with_old_openssl_names_the_version_needed(tmp_path):
    """A libcrypto without what OpenSSL 3.0 brought is refused."""
    said = refuse(tmp_path, LDFLAGS=link_stub(tmp_path, "crypto", "OpenSSL_version_num"))
    assert "OpenSSL 3.0 or later" in said
    assert said.endswith("apt-get install libssl-dev")


@pytest.mark.parametrize("missing", DEFENCES)
def test_build_with_nghttp2_without_a_defence_says_why(tmp_path, missing):
    """Whatever version it calls itself, a libnghttp2 is judged by its functions; the text names attack and version."""
    held = ["nghttp2_version", *(function for function in DEFENCES if function != missing)]
    said = refuse(tmp_path, LDFLAGS=link_stub(tmp_path, "nghttp2", *held))
    attack, version = DEFENCES[missing]
    assert missing in said
    assert attack in said
    assert f"nghttp2 {version} or later" in said
    assert said.endswith("apt-get install libnghttp2-dev")
