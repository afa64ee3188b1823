"""Keys and grants change in a running gateway by `apply`, under load."""

import dataclasses

import grpc
import pytest

from service.access_policy import Grant, TokenCondition
from service.deployment_diff import compare_deployments
from service.envoy_check import find_envoy
from service.gateway_apply import GatewayChange
from tests.service.access_rig import NOBODY, list_public, make_issuer_key, start_access_rig
from tests.service.gateway_rig import infer, open_channel, run_load

SCIENCE = {"realm": {"roles": ["science"]}}
OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """One gateway for all of these tests."""
    with start_access_rig(tmp_path_factory.mktemp("rotation")) as access:
        access.second = make_issuer_key(tmp_path_factory.mktemp("second"), "second", "ES256")
        yield access


def apply(access, **policy):
    """Put another policy in force and return what that changed."""
    rig = access.rig
    new = dataclasses.replace(rig.deployment, access=dataclasses.replace(rig.deployment.access, **policy))
    fields = [difference.field for difference in compare_deployments(rig.deployment, new)]
    assert GatewayChange(rig.state_folder, find_envoy()).apply(new)
    rig.deployment = new
    return fields


def change_keys(access, *keys):
    """Have the first issuer's tokens verified by these keys."""
    issuers = access.rig.deployment.access.issuers
    login = dataclasses.replace(issuers["login"], keys=list_public(*keys))
    return apply(access, issuers={**issuers, "login": login})


def test_keys_are_rotated_under_load_without_a_failed_call(access):
    """The new beside the old, then tokens of the new, then without the old."""
    tokens = [access.sign(SCIENCE)]
    access.connect(NOBODY)
    endpoint, certificates = access.rig.deployment.gateway, access.rig.certificates
    with open_channel(endpoint, certificates, "nobody", is_retrying=True) as channel:

        def ask():
            return infer(channel, metadata=[("authorization", f"Bearer {tokens[-1]}")])

        with run_load(ask) as load:
            load.wait_for_more(50)
            assert change_keys(access, access.login, access.second) == ["access.tokens.login.jwks.keys"]
            load.wait_for_more(50)
            tokens.append(access.sign(SCIENCE, access.second))
            load.wait_for_more(50)
            change_keys(access, access.second)
            load.wait_for_more(50)
        assert load.failures == []
    with access.rig.connect("nobody") as channel:
        assert [access.send_on(channel, token)[0] for token in tokens] == [UNAUTHENTICATED, OK]


def test_grant_that_is_taken_away_ends_at_once_for_tokens_that_are_known(access):
    """What is remembered of a token is that it is genuine, not what it allows."""
    change_keys(access, access.login)
    token = access.sign({**SCIENCE, "sub": "erin"})
    with access.rig.connect("nobody") as channel:
        assert access.send_on(channel, token)[0] == OK
    grants = access.rig.deployment.access.grants
    others = Grant("reader", token=TokenCondition("login", {("realm", "roles"): ("history",)}))
    assert apply(access, grants=(*(grant for grant in grants if grant.role != "reader"), others)) == ["access.grants"]
    with access.rig.connect("nobody") as channel:
        assert access.send_on(channel, token)[0] == grpc.StatusCode.PERMISSION_DENIED


def test_section_comes_and_goes_in_a_running_gateway(access):
    """Without it every client with a certificate may do all, as before there was one."""
    access.connect(NOBODY)
    policy, rig = access.rig.deployment.access, access.rig
    for section, expected in ((None, OK), (policy, UNAUTHENTICATED)):
        new = dataclasses.replace(rig.deployment, access=section)
        assert GatewayChange(rig.state_folder, find_envoy()).apply(new)
        with rig.connect("nobody") as channel:
            assert access.send_on(channel)[0] == expected
    rig.deployment = new
