"""A gateway that asks who calls: certificates of its authority by URI, and tokens of two issuers."""

import json
import time
from contextlib import contextmanager
from pathlib import Path

import grpc

from certs import ensure_certificates
from service.access_policy import AccessPolicy, Grant, Issuer, Role, TokenCondition
from service.deployment_file import format_deployment
from service.pb import open_inference_pb2 as pb
from service.token_keys import describe_key, load_key, make_key, sign_token
from tests.authorities import Authority
from tests.service.gateway_rig import call, start_rig

HOUR_S = 3600
LOGIN, PARTNER = "https://login.example.org/", "https://partner.example.org/"
ANN, BOB, DUO, NOBODY = (f"spiffe://example.org/{name}" for name in ("ann", "bob", "duo", "nobody"))
ROLES = {
    "owner": Role(("*",), ("infer", "pin", "metadata", "statistics", "load", "shared_memory", "trace_settings")),
    "watcher": Role(("*",), ("admin", "log_settings")),
    "reader": Role(("iris-*", "digits"), ("infer", "metadata")),
    "pinner": Role(("digits",), ("pin", "statistics")),
    "shifter": Role(("*",), ("admin", "traffic")),
    "loader": Role(("iris-*",), ("load", "trace_settings")),
}
GRANTS = (
    Grant("owner", (ANN,)),
    Grant("shifter", (BOB,)),
    Grant("watcher", (DUO,)),
    Grant("reader", token=TokenCondition("login", {("realm", "roles"): ("science", "math")})),
    Grant("reader", token=TokenCondition("partner", {("scope",): ("infer",), ("plan",): ("gold",)})),
    Grant("loader", (DUO,), TokenCondition("login")),
    Grant("pinner", (DUO,), TokenCondition("login", {("realm", "roles"): ("math",)})),
)


def make_issuer_key(folder, name, algorithm):
    """A new private key in a folder."""
    path = Path(folder, f"{name}.key")
    path.write_bytes(make_key(algorithm))
    return load_key(path)


def list_public(*keys):
    """A set of public keys as its text."""
    return json.dumps({"keys": [describe_key(key) for key in keys]}, sort_keys=True)


def make_policy(login, partner, **options):
    """The policy of these tests, by the issuers' keys."""
    issuers = {
        "login": Issuer(issuer=LOGIN, audiences=("sluice",), keys=list_public(login), roles=("realm", "roles")),
        "partner": Issuer(
            issuer=PARTNER, audiences=("sluice-partners",), keys=list_public(partner), subject=("client_id",)
        ),
    }
    return AccessPolicy(**{"issuers": issuers, "roles": ROLES, "grants": GRANTS, **options})


class AccessRig:
    """The running gateway, its issuers' keys, and clients by the URI of their certificate."""

    def __init__(self, rig, authority, login, partner):
        self.rig, self.login, self.partner = rig, login, partner
        self.policy = rig.deployment.access
        self.authority = authority
        self._channels = {}

    def connect(self, uri):
        """A channel with a certificate of that name; the same for the same name."""
        if uri not in self._channels:
            self.issue(uri)
            self._channels[uri] = self.rig.connect(uri.rpartition("/")[2])
        return self._channels[uri]

    def issue(self, uri):
        """Make a certificate of the gateway's authority, beside the others; the last part of the URI names it."""
        pair = self.authority.issue(f"URI:{uri}")
        for suffix, content in (("pem", pair.chain), ("key", pair.key)):
            (self.rig.certificates / f"{uri.rpartition('/')[2]}.{suffix}").write_bytes(content)

    def sign(self, claims, key=None):
        """A token of who its claims say, for the next hour unless they say otherwise."""
        is_login = claims.get("iss", LOGIN) == LOGIN
        ours = {
            "iss": LOGIN,
            "aud": "sluice" if is_login else "sluice-partners",
            "sub": "carol",
            "exp": int(time.time()) + HOUR_S,
        }
        return sign_token(key or (self.login if is_login else self.partner), {**ours, **claims})

    def ask(self, identity, method, message=b"", *, metadata=()):
        """Call a method as an identity, and return the status and what came with it: the answer or the reason."""
        claims = [("authorization", f"Bearer {self.sign(identity.claims)}")] if identity.claims is not None else []
        return self.send(identity.uris[0], method, message, [*claims, *metadata])

    def send(self, uri, method, message=b"", metadata=()):
        """Call a method with a certificate and any metadata, and return the status and what came with it."""
        return _answer(self.connect(uri), method, message, metadata)

    def send_on(self, channel, token=None):
        """Call ModelInfer for `digits` on any channel, as `send` does."""
        headers = [("authorization", f"Bearer {token}")] if token is not None else []
        return _answer(channel, "ModelInfer", pb.ModelInferRequest(model_name="digits"), headers)

    def infer(self, token=None, *, uri=NOBODY, model="digits", version="", metadata=()):
        """Call ModelInfer with a token and return the status and what came with it."""
        headers = [("authorization", f"Bearer {token}")] if token is not None else []
        message = pb.ModelInferRequest(model_name=model, model_version=version)
        return self.send(uri, "ModelInfer", message, [*headers, *metadata])

    def write_file(self, path):
        """Write the deployment as operators would."""
        path.write_text(format_deployment(self.rig.deployment))
        return path

    def close(self):
        """Close the channels."""
        for channel in self._channels.values():
            channel.close()


def _answer(channel, method, message, metadata):
    try:
        return grpc.StatusCode.OK, call(channel, method, message, metadata=metadata)
    except grpc.RpcError as error:
        return error.code(), error.details()


@contextmanager
def start_access_rig(state_folder, make=make_policy, **options):
    """A running gateway for `digits` by the policy that `make` makes of the issuers' keys."""
    certificates = state_folder / "certs"
    ensure_certificates(certificates)
    authority = Authority("clients")
    with (certificates / "gateway-ca.pem").open("ab") as file:
        file.write(authority.pem)
    login = make_issuer_key(state_folder, "login", "ES256")
    partner = make_issuer_key(state_folder, "partner", "RS256")
    with start_rig(state_folder, access=make(login, partner), **options) as rig:
        access = AccessRig(rig, authority, login, partner)
        try:
            yield access
        finally:
            access.close()
