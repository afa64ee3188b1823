"""The permits that the guard makes of a policy, and how many it remembers."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from kernels.permit import ACTIONS
from service.access_policy import AccessPolicy, Grant, Identity, Role
from service.callers import Callers
from service.guard import MAX_CALLERS, Guard, PermitBook

GATEWAY = "spiffe://test/gateway"
PATTERNS = st.sampled_from(["*", "a", "a*", "ab", "ab*", "b", "team-*"])
ROLES = st.builds(
    Role,
    st.lists(PATTERNS, min_size=1).map(tuple),
    st.lists(st.sampled_from([*ACTIONS, "load"]), min_size=1).map(tuple),
)


def name(owner):
    """A certificate's name."""
    return f"spiffe://test/{owner}"


def auth(owner):
    """A handshake by which somebody is known."""
    return {"peer_uri": [name(owner).encode()]}


def grant_all(roles):
    """A policy that gives each role to who has its name."""
    return AccessPolicy(roles=roles, grants=tuple(Grant(role, (name(role), name("all"))) for role in roles))


@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), ROLES, min_size=1), st.sampled_from(["x", "all", "nobody"]))
def test_permit_allows_what_the_policy_decides(roles, owner):
    """Each action that the engine checks, on any model."""
    policy = grant_all(roles)
    identity = Identity((name(owner),))
    permit = PermitBook(policy).permit(identity)
    for model in ("a", "ab", "abc", "b", "c", "team-", "team-1"):
        for action, bit in ACTIONS.items():
            assert bool(permit.actions(model) & bit) == policy.decide(identity, action, model).allowed


def test_callers_of_the_same_roles_share_a_permit():
    """So that many callers take little."""
    policy = AccessPolicy(
        roles={"tester": Role(("a",), ("infer",))}, grants=(Grant("tester", (name("one"), name("two"))),)
    )
    guard = Guard(policy, Callers([GATEWAY]))
    one, two, nobody = (guard.admit(auth(owner), ()) for owner in ("one", "two", "nobody"))
    assert one[0] is two[0] is not nobody[0]
    assert not one[1]


def test_gateways_word_is_what_its_callers_are_told_apart_by():
    """Its own certificate is one for all; of a caller of his own the headers mean nothing."""
    guard = Guard(grant_all({"tester": Role(("a",), ("infer",))}), Callers([name("gateway")]))

    def say(owner, uri):
        return guard.admit(auth(owner), [("x-forwarded-client-cert", f"URI={uri}")])

    permit, is_forwarded = say("gateway", name("tester"))
    assert (permit.actions("a"), is_forwarded) == (ACTIONS["infer"], True)
    assert say("gateway", name("other"))[0].actions("a") == 0
    permit, is_forwarded = say("other", name("tester"))
    assert (permit.actions("a"), is_forwarded) == (0, False)
    assert say("gateway", "a,b")[0].actions("a") == 0


def test_flood_of_callers_is_remembered_in_bounds():
    """However many there are."""
    guard = Guard(grant_all({"tester": Role(("a",), ("infer",))}), Callers([]))
    for place in range(2 * MAX_CALLERS):
        guard.admit(auth(f"stranger-{place}"), ())
    book = guard._book
    assert len(book._by_caller) == MAX_CALLERS
    assert len(book._by_roles) == 1


def test_replaced_policy_decides_at_once_and_says_so():
    """What was remembered is forgotten."""
    guard, told = Guard(grant_all({"tester": Role(("a",), ("infer",))}), Callers([])), []
    guard.subscribe(lambda: told.append(guard.admit(auth("tester"), ())[0].actions("a")))
    assert guard.admit(auth("tester"), ())[0].actions("a") == ACTIONS["infer"]
    guard.replace(grant_all({"tester": Role(("b",), ("infer",))}))
    assert told == [0]
    context = SimpleNamespace(auth_context=lambda: auth("tester"), invocation_metadata=lambda: None)
    assert guard.decide(context, "infer", "b").allowed
