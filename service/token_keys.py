"""Keys and tokens (RFC 7515, 7517, 7519) for development, by which a gateway can be tried before there is an issuer.

Signing is all there is: tokens are verified by the gateway.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
ALGORITHMS = ("ES256", "RS256")
RSA_BITS = 2048
# Of a coordinate, and of each half of a signature.
P256_BYTES = 32


class TokenKeyError(ValueError):
    """A key that cannot sign; the text names its file and says why."""


def make_key(algorithm: str) -> bytes:
    """A new private key for one of ALGORITHMS, PEM."""
    if algorithm == "ES256":
        key: Key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(path: Path) -> Key:
    """Read a private key that one of ALGORITHMS can sign with; TokenKeyError for any other file."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TokenKeyError(f"{path}: expected a private key in PEM: {error}") from None
    is_p256 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    if not is_p256 and not isinstance(key, rsa.RSAPrivateKey):
        raise TokenKeyError(f"{path}: expected a key of RSA, or of EC on P-256")
    return key


def describe_key(key: Key) -> dict[str, str]:
    """Its public half as a JSON Web Key; its name, `kid`, is the digest of that half (RFC 7638)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        members = {
            "crv": "P-256",
            "kty": "EC",
            "x": _encode_int(point.x, P256_BYTES),
            "y": _encode_int(point.y, P256_BYTES),
        }
    else:
        public = key.public_key().public_numbers()
        members = {"e": _encode_int(public.e), "kty": "RSA", "n": _encode_int(public.n)}
    digest = hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()
    return {**members, "kid": encode_base64(digest), "alg": name_algorithm(key), "use": "sig"}


def name_algorithm(key: Key) -> str:
    """What a key signs by."""
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"


def sign_token(key: Key, claims: Mapping[str, Any]) -> str:
    """A signed token with these claims."""
    header = {"alg": name_algorithm(key), "kid": describe_key(key)["kid"], "typ": "JWT"}
    content = ".".join(encode_base64(json.dumps(part).encode()) for part in (header, claims))
    return f"{content}.{encode_base64(_sign(key, content.encode()))}"


def read_claims(token: str) -> dict[str, Any]:
    """What a token says, with nothing verified; ValueError when it is none."""
    parts = token.strip().split(".")
    if len(parts) != 3:
        raise ValueError("expected a token of three parts with dots in between")
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if not isinstance(claims, dict):
        raise ValueError("expected a token whose claims are a JSON object")
    return claims


def encode_base64(content: bytes) -> str:
    """As tokens have it: the alphabet for URLs, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _sign(key: Key, content: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    # RFC 7518, section 3.4: the two numbers one behind the other.
    halves = decode_dss_signature(key.sign(content, ec.ECDSA(hashes.SHA256())))
    return b"".join(half.to_bytes(P256_BYTES, "big") for half in halves)


def _encode_int(number: int, size: int | None = None) -> str:
    return encode_base64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))
