"""Limits by what verified tokens say: subjects and tenants of two issuers, in a real Envoy."""

import dataclasses

import grpc
import pytest
from access_rig import LOGIN, PARTNER, make_policy, start_access_rig

from service.limits import Limits, RateLimit

HOUR = {"per": "hour", "requests": 1}
RATES = (
    RateLimit(name="subjects", by=("subject",), burst=2, tenants=("blue",), **HOUR),
    RateLimit(name="tenants", by=("tenant",), burst=3, tenants=("acme", "emca", "-"), **HOUR),
    RateLimit(name="one", by=("model",), burst=1, subjects=("one", "two"), **HOUR),
)
SCIENCE = {"realm": {"roles": ["science"]}}
GOLD = {"iss": PARTNER, "scope": "infer", "plan": "gold"}
NOBODY, ANYBODY = "spiffe://example.org/nobody", "spiffe://example.org/anybody"


def make(login, partner):
    """The policy of the tests of access, with a tenant that lies in another claim."""
    policy = make_policy(login, partner)
    issuers = {**policy.issuers, "login": dataclasses.replace(policy.issuers["login"], tenant=("org", "id"))}
    return dataclasses.replace(policy, issuers=issuers)


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """One gateway for all of these tests."""
    with start_access_rig(tmp_path_factory.mktemp("tokens"), make, limits=Limits(rates=RATES)) as access:
        yield access


def count(access, calls, claims, uri=NOBODY):
    """How many of some calls with a token are let through."""
    codes = [access.infer(access.sign({"iss": LOGIN, **SCIENCE, **claims}), uri=uri)[0] for _ in range(calls)]
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    return codes.count(grpc.StatusCode.OK)


def test_subject_is_the_tokens_whatever_the_certificate(access):
    """One subject cannot spend what is another's, nor gain by a second certificate or a fresh token."""
    blue = {"org": {"id": "blue"}}
    assert count(access, 3, {"sub": "ann", **blue}) == 2
    assert count(access, 2, {"sub": "ann", "jti": "fresh", **blue}, uri=ANYBODY) == 0
    assert count(access, 3, {"sub": "ben", **blue}) == 2


def test_subject_is_in_the_claim_that_its_issuer_has_it_in(access):
    """`client_id` of the partner's; its `sub` is of no meaning."""
    claims = {**GOLD, "tenant": "blue"}
    assert count(access, 3, {"client_id": "shop", "sub": "a", **claims}) == 2
    assert count(access, 2, {"client_id": "shop", "sub": "b", **claims}) == 0
    assert count(access, 3, {"client_id": "mill", "sub": "a", **claims}) == 2


@pytest.mark.parametrize("subject", ["", 7, ["x"], None], ids=["empty", "number", "list", "none"])
def test_token_without_a_subject_is_counted_by_the_certificate(access, subject):
    """As AccessPolicy.subject_of has it; a strange subject evades no limit."""
    uri = f"spiffe://example.org/{type(subject).__name__}"
    strange = {**GOLD, "tenant": "blue"} | ({} if subject is None else {"client_id": subject})
    assert count(access, 1, strange, uri=uri) == 1
    assert count(access, 2, {"sub": uri, "org": {"id": "blue"}}) == 1
    assert count(access, 1, strange, uri=uri) == 0


def test_one_tenant_cannot_spend_what_is_anothers(access):
    """Its subjects share, whoever issued their tokens; the claim is nested with one issuer and plain with the other."""
    assert count(access, 2, {"sub": "t1", "org": {"id": "acme"}}) == 2
    assert count(access, 1, {"client_id": "t2", **GOLD, "tenant": "acme"}) == 1
    assert count(access, 2, {"sub": "t3", "org": {"id": "acme"}}) == 0
    assert count(access, 4, {"sub": "t1", "org": {"id": "emca"}}) == 3


def test_who_has_no_tenant_shares_a_bucket_with_others_who_have_none(access):
    """Also where the claim is there and no text."""
    strange = [{}, {"org": "acme"}, {"org": {"id": ["acme"]}}, {"tenant": "acme"}, {"org": {"id": ""}}]
    counts = [count(access, 1, {"sub": f"u{place}", **claims}) for place, claims in enumerate(strange)]
    assert counts == [1, 1, 1, 0, 0]


def test_limit_for_some_subjects_counts_these_alone(access):
    """Together, since it counts by model."""
    green = {"org": {"id": "green"}}
    assert count(access, 2, {"sub": "one", **green}) == 1
    assert count(access, 2, {"sub": "two", **green}) == 0
    assert count(access, 4, {"sub": "three", **green}) == 4


def test_refused_token_spends_nothing(access):
    """Who is turned away was nobody: no limit counts the call."""
    claims = {"iss": LOGIN, "sub": "eve", "org": {"id": "blue"}}
    for _ in range(4):
        code, _ = access.infer(access.sign({**claims, **SCIENCE, "exp": 1}))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        code, _ = access.infer(access.sign(claims))
        assert code is grpc.StatusCode.PERMISSION_DENIED
    assert count(access, 4, claims) == 2
