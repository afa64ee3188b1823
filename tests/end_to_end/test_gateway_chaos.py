"""Everything at once: servers fail while an operator changes what is declared, shifted and trusted, and clients call.

CHAOS_SECONDS has it go on for longer than a test's usual time.
"""

import os
import time

import onnx_models
import pytest

from tests.end_to_end.chaos import MODEL, Changes, Faults
from tests.end_to_end.deployment_rig import TwinDeployment
from tests.end_to_end.load import run_load
from tests.end_to_end.models import VERSIONS, adder

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = 20260
CALLERS = 16
# An Envoy that is replaced takes so long and three seconds to go.
DRAIN_S = 4.0
# Of changes, each of which comes once before any comes again.
KINDS = 5
# Calls that show who answers after a change.
CALLS = 100


@pytest.fixture
def twins(transport, tmp_path):
    """Two servers of both versions, behind a gateway that splits evenly.

    Of one model alone: an Envoy watches files of each version, and its successor does so too while both are there.
    """
    if transport != "native":
        pytest.skip("what the gateway does is the same whatever the servers' transport is: run with the native one")
    for version in VERSIONS:
        onnx_models.save(adder(version), tmp_path / "models", MODEL, version, "max_batch_size: 8")
    with TwinDeployment(
        tmp_path / "models", tmp_path, weights={MODEL: {1: 50, 2: 50}}, drain_timeout_s=DRAIN_S
    ) as twins:
        twins.await_healthy(2)
        yield twins


def test_every_call_is_answered_by_a_version_that_may_whatever_happens(clients, twins):
    """None fails, none is lost, none meets a version without weight or one that is declared no more."""
    changes, faults = Changes(twins, SEED), Faults(twins, SEED)
    until = time.monotonic() + SECONDS
    # Connections are told to go when listeners change; as by default, clients send again what nobody has seen.
    options = {"enable_retries": 1}
    with run_load(clients, twins.target, callers=CALLERS, connections=4, channel_options=options) as load:
        load.wait_for_more(CALLS)
        with faults:
            while time.monotonic() < until or not faults.happened or len(set(changes.happened)) < KINDS:
                allowed = changes.make_one()
                # Those under way may still go by what was before.
                load.wait_for_more(2 * CALLERS)
                assert set(load.wait_for_more(CALLS)) <= allowed, changes.happened
        load.wait_for_more(CALLS)
    print(f"{load.outcomes.total()} calls, longest {load.longest_s:.1f} s; {changes.happened}; {faults.happened}")
    assert load.failures == []
