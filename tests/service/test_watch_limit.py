"""How many files an Envoy watches, and what is said where it may not."""

import os

import pytest
from gateway_rig import start_rig

from service.envoy_check import GatewayError
from service.watch_limit import OTHER_WATCHES, check_watches


def test_envoy_takes_as_many_instances_as_are_counted(tmp_path):
    """For each file of servers one, and for all others together so many, at most."""
    with start_rig(tmp_path) as rig:
        folder = f"/proc/{rig.child.pid}/fd"
        taken = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)].count("anon_inode:inotify")
        endpoints = len(os.listdir(tmp_path / "envoy/endpoints"))
        assert endpoints < taken <= endpoints + OTHER_WATCHES


def test_gateway_that_may_not_watch_its_files_is_told_what_to_type(tmp_path):
    """Envoy would abort."""
    limit = tmp_path / "limit"
    limit.write_text(f"{OTHER_WATCHES + 3}\n")
    files = [f"envoy/endpoints/digits@{version}.yaml" for version in range(3)]
    check_watches([*files, "envoy/clusters.yaml"], limit)
    with pytest.raises(GatewayError, match=r"sysctl fs\.inotify.max_user_instances="):
        check_watches([*files, "envoy/endpoints/service.yaml"], limit)
