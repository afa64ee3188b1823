"""service.ads_subscription: versions and nonces, as a follower of the control plane sends them."""

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from google.protobuf.any_pb2 import Any

from service.ads_subscription import Subscription
from service.xds_resources import Resource

RESOURCES = {name: Resource(Any(), f"digest of {name}") for name in ("a", "b", "c")}


def ask(*names, nonce="", version="", error=""):
    """A request."""
    request = DiscoveryRequest(resource_names=names, response_nonce=nonce, version_info=version)
    if error:
        request.error_detail.message = error
    return request


def begin(*names):
    """A subscription to names that has been answered, the version of that answer, and its nonce."""
    subscription = Subscription()
    subscription.begin(ask(*names))
    version = subscription.version_of(RESOURCES)
    return subscription, version, subscription.note_sent(version)


@pytest.mark.parametrize("names", [(), ("*",)])
def test_first_request_without_names_asks_for_all(names):
    """As Envoy asks for clusters and listeners."""
    subscription, _, _ = begin(*names)
    assert subscription.choose(RESOURCES) == RESOURCES


def test_named_resources_alone_are_chosen_and_make_the_version():
    """What one does not ask for is no news."""
    subscription, version, _ = begin("a", "nobody")
    assert list(subscription.choose(RESOURCES)) == ["a"]
    others = {**RESOURCES, "b": Resource(Any(), "another")}
    assert subscription.version_of(others) == version
    assert subscription.version_of({**RESOURCES, "a": Resource(Any(), "another")}) != version


def test_acknowledged_answer_is_taken_and_wants_no_further_one():
    """An ACK is a request with the answer's nonce."""
    subscription, version, nonce = begin("a")
    assert not subscription.has_taken(RESOURCES)
    assert not subscription.hear(ask("a", nonce=nonce, version=version))
    assert subscription.has_taken(RESOURCES)


def test_refused_answer_leaves_what_was_taken_before():
    """A NACK carries a reason, which stays to be shown when something better has been taken."""
    subscription, old, nonce = begin("a")
    subscription.hear(ask("a", nonce=nonce, version=old))
    nonce = subscription.note_sent("bad")
    assert not subscription.hear(ask("a", nonce=nonce, version=old, error="no such thing"))
    assert (subscription.taken, subscription.is_refusing) == (old, True)
    assert (subscription.refused, subscription.refusal) == ("bad", "no such thing")
    nonce = subscription.note_sent(old)
    subscription.hear(ask("a", nonce=nonce, version=old))
    assert (subscription.is_refusing, subscription.refusal) == (False, "no such thing")


def test_request_that_answers_an_earlier_answer_means_nothing():
    """Another follows it."""
    subscription, _, nonce = begin("a")
    subscription.note_sent("newer")
    assert not subscription.hear(ask("a", "b", nonce=nonce, version="old", error="late"))
    assert (subscription.names, subscription.is_refusing) == (frozenset("a"), False)


@pytest.mark.parametrize("names", [("a", "b"), ("b",)])
def test_other_names_want_an_answer(names):
    """With the acknowledgement or after it."""
    subscription, version, nonce = begin("a")
    assert subscription.hear(ask(*names, nonce=nonce, version=version))
    nonce = subscription.note_sent(subscription.version_of(RESOURCES))
    assert not subscription.hear(ask(*names, nonce=nonce, version=version))
    assert subscription.has_taken(RESOURCES)


def test_same_request_again_wants_an_answer():
    """A cluster that has changed asks for its servers, of which it knows nothing yet."""
    subscription, version, nonce = begin("a")
    assert not subscription.hear(ask("a", nonce=nonce, version=version))
    assert subscription.hear(ask("a", nonce=nonce, version=version))


def test_names_that_have_all_gone_want_nothing():
    """Not to be mistaken for a first request without names."""
    subscription, version, nonce = begin("a")
    assert not subscription.hear(ask(nonce=nonce, version=version))
    assert subscription.choose(RESOURCES) == {}
    assert subscription.has_taken(RESOURCES)
