"""A real OAuth 2.0 server on a free port: the npm package oidc-provider, installed once into the user's cache."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.authorities import Authority

# The last that is for Node 20.
PACKAGE = "oidc-provider@8.8.1"
PROGRAM = Path(__file__).with_name("oidc_provider.mjs")
INSTALL_TIMEOUT_S = 240
CLIENT_ID, CLIENT_SECRET = "batch/jobs", "s:e%c r+t"
SCOPE, AUDIENCE, RESOURCE = "infer", "sluice", "https://sluice.example.org"


def find_package():
    """The folder that holds the package and what it needs; without it and without npm the test is skipped."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed, which runs or installs {PACKAGE}")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sluice-tests"
    place = cache / PACKAGE
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # All at once, since other runs may look there meanwhile.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder, "made")
            if reason := _install(made):
                pytest.skip(f"npm cannot install {PACKAGE}: {reason}")
            if not place.exists():
                made.replace(place)
    return place / "node_modules"


def _install(folder):
    folder.mkdir()
    command = ["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired:
        return f"not done after {INSTALL_TIMEOUT_S} s"
    except subprocess.CalledProcessError as error:
        return error.stderr.strip()[-300:]
    return ""


class OidcServer:
    """The running server; leaving it as a context ends it.

    Parameters
    ----------
    lifetime_s
        How long its tokens are valid, in whole seconds.
    """

    def __init__(self, folder, lifetime_s):
        authority = Authority("login")
        pair = authority.serve()
        self.authority = folder / "login-ca.pem"
        self.authority.write_bytes(authority.pem)
        (folder / "login.pem").write_bytes(pair.chain)
        (folder / "login.key").write_bytes(pair.key)
        # A program finds packages beside itself, and they what they need beside where they really are.
        (folder / "node_modules").symlink_to(find_package())
        shutil.copy(PROGRAM, folder)
        self._process = subprocess.Popen(
            ["node", PROGRAM.name], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        config = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "scope": SCOPE,
            "audience": AUDIENCE,
            "claims": {"tenant": "acme"},
            "lifetime_s": lifetime_s,
            "certificate": str(folder / "login.pem"),
            "key": str(folder / "login.key"),
        }
        self.issuer = self._tell(json.dumps(config), lambda line: line.startswith("https://"))

    def change_key(self, name):
        """Sign by a new key from now on, and publish no other."""
        self._tell(name, lambda line: line == name)

    def _tell(self, line, is_answer):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        # Warnings that it is not meant for production come between.
        for answer in self._process.stdout:
            if is_answer(answer.strip()):
                return answer.strip()
        raise AssertionError(f"{PACKAGE} ended with {self._process.wait()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
