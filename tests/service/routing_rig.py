"""A gateway with all that calls can have besides weights, for the tests of it."""

import time
from contextlib import contextmanager

from access_rig import LOGIN, list_public, make_issuer_key
from gateway_rig import MAX_MESSAGE_BYTES, START_TIMEOUT_S, Backend, Rig, infer

from certs import ensure_certificates
from certs.identities import CLIENT_URI
from service.access_policy import AccessPolicy, Grant, Issuer, Role
from service.deployment import Deployment, Endpoint, Version
from service.model_routing import CallKey, Routing, Shadow
from service.shadow_traffic import ShadowTraffic
from tests.free_ports import HOST, find_free_port

MODELS = ("digits", "words", "sums", "known", "lost")
USERS = [f"user-{number}" for number in range(300)]


@contextmanager
def start_routing(folder):
    """One gateway: `digits` with callers that stay and a shadow, `words` and `sums` with sequences.

    The shadow of `lost` is not there.
    """
    ensure_certificates(folder / "certs")
    serves = [f"{model}/{number}" for model in MODELS for number in (1, 2, 3)]
    backends = {name: Backend(name, folder / "certs", serves) for name in "abc"}
    a, b, c = (backend.endpoint for backend in backends.values())
    everywhere = {1: Version(50, (a, b, c)), 2: Version(50, (a, b, c))}
    key = make_issuer_key(folder, "login", "ES256")
    policy = AccessPolicy(
        issuers={"login": Issuer(issuer=LOGIN, audiences=("sluice",), keys=list_public(key))},
        roles={"user": Role(("*",), ("infer", "pin", "metadata"))},
        grants=(Grant("user", (CLIENT_URI,)),),
    )
    deployment = Deployment(
        models={
            "digits": {1: Version(90, (a,)), 2: Version(10, (b,)), 3: Version(0, (c,))},
            "words": everywhere,
            "sums": everywhere,
            "known": {1: Version(50, (a,)), 2: Version(50, (b,))},
            "lost": {1: Version(1, (a,)), 3: Version(0, (Endpoint(HOST, find_free_port()),))},
        },
        routing={
            "digits": Routing(sticky=CallKey(header="x-user"), shadow=Shadow(3, 0)),
            "words": Routing(affinity=CallKey(header="sluice-sequence")),
            "sums": Routing(affinity=CallKey(message="sequence_id")),
            "known": Routing(sticky=CallKey(claim="sub")),
            "lost": Routing(shadow=Shadow(3, 100)),
        },
        access=policy,
        certificates=folder / "certs",
        gateway=Endpoint(HOST, find_free_port()),
        operator=Endpoint(HOST, find_free_port()),
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    rig = Rig(folder, deployment, START_TIMEOUT_S)
    rig.issuer_key = key
    rig.backends = backends
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        for backend in backends.values():
            backend.stop()


def place_users(channel):
    """The answer that each user gets."""
    return {user: infer(channel, metadata=[("x-user", user)]) for user in USERS}


@contextmanager
def copies(rig, percent):
    """So many percent of the calls are copied to the shadow while the block runs."""
    shadow = ShadowTraffic(rig.deployment, rig.operator)
    shadow.set_percent("digits", percent)
    rig.backends["c"].calls.clear()
    try:
        yield rig.backends["c"].calls
    finally:
        shadow.set_percent("digits", None)


def await_calls(calls, count):
    """Return when a backend has got so many calls."""
    for _ in range(3000):
        if len(calls) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(len(calls))
