"""service.access_policy: who may do what, without any gateway."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access_policy import (
    ACTIONS,
    AccessPolicy,
    Grant,
    Identity,
    Issuer,
    Role,
    TokenCondition,
    list_values,
    matches_model,
)
from service.deployment import DeploymentError

ANN, BOB, DUO = "spiffe://example.org/ann", "spiffe://example.org/bob", "spiffe://example.org/duo"
LOGIN, PARTNER = "https://login.example.org/", "https://partner.example.org/"
ISSUERS = {
    "login": Issuer(issuer=LOGIN, audiences=("sluice",), roles=("realm", "roles")),
    "partner": Issuer(issuer=PARTNER, audiences=("sluice",), subject=("client_id",), tenant=("org",)),
}
ROLES = {
    "owner": Role(("*",), ACTIONS),
    "reader": Role(("iris-*", "digits"), ("infer", "metadata")),
    "pinner": Role(("digits",), ("pin",)),
    "idle": Role(("*",), ("infer",)),
}
GRANTS = (
    Grant("owner", certificates=(ANN, "spiffe://example.org/anna")),
    Grant("reader", token=TokenCondition("login", {("realm", "roles"): ("science", "math")})),
    Grant("reader", token=TokenCondition("partner", {("scope",): ("infer",), ("plan",): ("gold",)})),
    Grant("reader", certificates=(DUO,), token=TokenCondition("login")),
    Grant("pinner", certificates=(DUO,)),
)
POLICY = AccessPolicy(issuers=ISSUERS, roles=ROLES, grants=GRANTS)


def login(*roles, **claims):
    """Claims of a token of the first issuer."""
    return {"iss": LOGIN, "sub": "carol", "realm": {"roles": list(roles)}, **claims}


def partner(**claims):
    """Claims of a token of the second issuer."""
    return {"iss": PARTNER, "client_id": "batch", "org": "acme", "sub": "ignored", **claims}


@pytest.mark.parametrize(
    ("uris", "claims", "roles"),
    [
        ((), None, ()),
        ((ANN,), None, ("owner",)),
        (("spiffe://example.org/anna",), None, ("owner",)),
        (("spiffe://example.org/an",), None, ()),
        (("spiffe://example.org/annas",), None, ()),
        (("SPIFFE://example.org/ann",), None, ()),
        ((BOB, ANN), None, ("owner",)),
        ((BOB,), login("science"), ("reader",)),
        ((), login("math", "x"), ("reader",)),
        ((), login(), ()),
        ((), login("sciences"), ()),
        ((), {"iss": LOGIN, "realm": {"roles": "science"}}, ("reader",)),
        ((), {"iss": LOGIN, "realm": {"roles": "science math"}}, ()),
        ((), {"iss": LOGIN, "realm": "science"}, ()),
        ((), {"iss": LOGIN, "roles": ["science"]}, ()),
        ((), {"iss": LOGIN, "realm": {"roles": [["science"], {"science": 1}, 7, None]}}, ()),
        ((), {"realm": {"roles": ["science"]}}, ()),
        ((), {"iss": [LOGIN], "realm": {"roles": ["science"]}}, ()),
        ((), {"iss": PARTNER, "realm": {"roles": ["science"]}}, ()),
        ((), partner(scope="read infer", plan="gold"), ("reader",)),
        ((), partner(scope="read infer"), ()),
        ((), partner(scope="infers", plan="gold"), ()),
        ((), partner(scope="infer", plan="gold silver"), ()),
        ((), partner(scope=["infer"], plan=["gold"]), ("reader",)),
        ((DUO,), None, ("pinner",)),
        ((DUO,), partner(), ("pinner",)),
        ((DUO,), login(), ("reader", "pinner")),
        ((BOB,), login(), ()),
        ((DUO, ANN), login("math"), ("owner", "reader", "pinner")),
    ],
)
def test_roles_follow_from_grants_alone(uris, claims, roles):
    """By certificate, by token, or by both where both are asked for."""
    assert POLICY.roles_of(Identity(uris, claims)) == roles


@pytest.mark.parametrize(
    ("identity", "action", "model", "allowed"),
    [
        (Identity((ANN,)), "load", "anything", True),
        (Identity((ANN,)), "log_settings", None, True),
        (Identity((BOB,)), "infer", "digits", False),
        (Identity((), login("math")), "infer", "digits", True),
        (Identity((), login("math")), "infer", "iris-2", True),
        (Identity((), login("math")), "infer", "iris-", True),
        (Identity((), login("math")), "infer", "iris", False),
        (Identity((), login("math")), "infer", "digits2", False),
        (Identity((), login("math")), "infer", "", False),
        (Identity((), login("math")), "metadata", None, False),
        (Identity((), login("math")), "pin", "digits", False),
        (Identity((), login("math")), "load", "digits", False),
        (Identity((DUO,)), "pin", "digits", True),
        (Identity((DUO,)), "infer", "digits", False),
        (Identity((ANN,)), "fly", "digits", False),
    ],
)
def test_decision_is_that_of_the_roles(identity, action, model, allowed):
    """Action and model of one role; nothing else is allowed."""
    decision = POLICY.decide(identity, action, model)
    assert (decision.allowed, decision.role is not None) == (allowed, allowed)
    assert action in decision.reason


def test_decision_names_role_and_grant():
    """So that people find the line."""
    allowed = POLICY.decide(Identity((DUO,), login()), "infer", "digits")
    assert (allowed.role, allowed.grant) == ("reader", 3)
    assert allowed.reason == "role 'reader' allows infer on model 'digits'"
    refused = POLICY.decide(Identity((DUO,), login()), "load", None)
    assert refused.reason.endswith("allowed by no role of the caller, who has reader, pinner")


@pytest.mark.parametrize(
    ("identity", "subject", "tenant"),
    [
        (Identity((ANN, BOB)), ANN, None),
        (Identity((ANN,), login(tenant="acme")), "carol", "acme"),
        (Identity((ANN,), partner()), "batch", "acme"),
        (Identity((ANN,), {"iss": "https://other/", "sub": "carol"}), ANN, None),
        (Identity((), {"iss": LOGIN, "sub": 7, "tenant": ["acme"]}), None, None),
        (Identity((ANN,), {"iss": LOGIN, "sub": ""}), ANN, None),
        (Identity(), None, None),
    ],
)
def test_subject_and_tenant_are_the_tokens_then_the_certificates(identity, subject, tenant):
    """Under the names that the issuer has for them."""
    assert (POLICY.subject_of(identity), POLICY.tenant_of(identity)) == (subject, tenant)


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"grants": (Grant("nobody", (ANN,)),)}, (0, "role"), "expected one of the roles owner"),
        ({"grants": (*GRANTS, Grant("owner"))}, (5,), "expected certificates, a token or both"),
        ({"grants": (Grant("owner", (), TokenCondition("x")),)}, (0, "token", "issuer"), "login, partner, given 'x'"),
    ],
)
def test_grant_of_what_is_not_there_is_refused(change, path, words):
    """With the way to it in the file."""
    with pytest.raises(DeploymentError, match=words) as refusal:
        AccessPolicy(**{"issuers": ISSUERS, "roles": ROLES, "grants": GRANTS, **change})
    assert refusal.value.path == ("access", "grants", *path)


def test_issuer_with_two_names_is_refused():
    """The token could not tell which one it is of."""
    with pytest.raises(DeploymentError, match="given 'login' and 'again'"):
        AccessPolicy(issuers={**ISSUERS, "again": ISSUERS["login"]}, roles=ROLES, grants=GRANTS)


NAMES = st.text(st.sampled_from("ab-.*"), min_size=1, max_size=4)


@given(st.lists(NAMES, max_size=3), NAMES.filter(lambda name: "*" not in name))
def test_model_is_matched_as_the_pattern_reads(patterns, model):
    """A star stands for any ending, and nowhere but at the end for anything."""
    for pattern in patterns:
        stem, star = (pattern[:-1], True) if pattern.endswith("*") else (pattern, False)
        assert matches_model(pattern, model) == (model[: len(stem)] == stem if star else model == pattern)
        assert matches_model(pattern, None) == (pattern == "*")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["iss", "sub", "scope", "realm", "plan", "client_id"]), JSON))
def test_no_claims_break_a_decision_or_grant_by_accident(claims):
    """Whatever an issuer signs; what it does not name as text is nothing."""
    identity = Identity((BOB,), claims)
    assert POLICY.roles_of(identity) == () or claims["iss"] in (LOGIN, PARTNER)
    assert POLICY.subject_of(identity)
    assert all(isinstance(value, str) for value in list_values(claims, ("scope",)))


@given(
    st.lists(st.sampled_from((ANN, BOB, DUO)), max_size=3), st.sampled_from(ACTIONS), st.sampled_from(["digits", None])
)
def test_another_grant_takes_nothing_away(uris, action, model):
    """Roles only add up."""
    wider = AccessPolicy(issuers=ISSUERS, roles=ROLES, grants=(Grant("idle", (BOB,)), *GRANTS))
    identity = Identity(tuple(uris))
    assert POLICY.decide(identity, action, model).allowed <= wider.decide(identity, action, model).allowed
