"""Tokens for clients: got by OAuth 2.0's client-credentials flow (RFC 6749, section 4.4), renewed before they end.

Of this package it needs nothing, and grpcio alone besides: with generated stubs of any origin,

    tokens = TokenSource(TokenEndpoint("https://login.example.org/token", "my-client", secret, scope="infer"))
    credentials = grpc.composite_channel_credentials(ssl_credentials, tokens.call_credentials())
    channel = grpc.secure_channel(target, credentials)  # or grpc.aio.secure_channel

Every call then carries a token. One that cannot be got fails calls with UNAVAILABLE and the reason.
"""

import base64
import http.client
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus, urlencode, urlsplit

import grpc

# Of an answer without `expires_in`.
DEFAULT_LIFETIME_S = 300.0
# A token is renewed when this part of its life, or so many seconds, are left, whichever comes later.
RENEWED_PART = 0.2
RENEWED_AHEAD_S = 60.0
# After a failure, how long it is the answer to all who ask.
RETRY_AFTER_S = 1.0
MOST_ANSWER_BYTES = 1024 * 1024
# RFC 6750, section 2.1.
TOKEN_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")

Settle = Callable[[str | None, Exception | None], None]


class TokenError(Exception):
    """There is no token; the text says why, and holds no secret."""


@dataclass(frozen=True)
class Token:
    """A token and how long it lives from when it was asked for, in seconds."""

    text: str
    lifetime_s: float


@dataclass(frozen=True, kw_only=True)
class TokenEndpoint:
    """Where an OAuth 2.0 server gives tokens to clients, and who asks.

    Attributes
    ----------
    uri
        An https URL.
    scope, resource, audience
        What is asked for; servers differ in which of them they know: `scope` (RFC 6749), `resource` (RFC 8707), or
        `audience`.
    authority
        PEM file of who vouches for the server; the system's own when None.
    timeout_s
        How long a token may take to get, in all.
    """

    uri: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    resource: str = ""
    audience: str = ""
    authority: Path | None = None
    timeout_s: float = 10.0

    def fetch(self) -> Token:
        """Ask for a token; TokenError when there is none."""
        asked = time.monotonic()
        url = urlsplit(self.uri)
        if url.scheme != "https" or not url.hostname:
            raise TokenError(f"token endpoint {self.uri}: expected an https URL")
        try:
            context = ssl.create_default_context(cafile=self.authority and str(self.authority))
            connection = http.client.HTTPSConnection(
                url.hostname, url.port or 443, timeout=self.timeout_s, context=context
            )
            with closing(connection):
                path = url.path + (f"?{url.query}" if url.query else "")
                connection.request("POST", path or "/", self._write_body(), self._write_headers())
                with connection.getresponse() as response:
                    answer = response.read(MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise TokenError(f"token endpoint {self.uri}: {error}") from error
        token = _read_answer(self.uri, response.status, answer)
        return Token(token.text, token.lifetime_s - (time.monotonic() - asked))

    def _write_body(self) -> str:
        wanted = {"scope": self.scope, "resource": self.resource, "audience": self.audience}
        given = {name: value for name, value in wanted.items() if value}
        return urlencode({"grant_type": "client_credentials", **given})

    def _write_headers(self) -> dict[str, str]:
        # RFC 6749, section 2.3.1: both are encoded before they are put together.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return {
            "authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }


class TokenSource:
    """Keeps a token that is valid, for any number of threads and event loops.

    A token is got when a call first needs one. It is renewed in the background by the first call that finds it near its
    end, while it is still used; so nothing is asked for while nobody calls.

    Parameters
    ----------
    endpoint
        Where to get tokens.
    """

    def __init__(self, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._token: str | None = None
        self._error: TokenError | None = None
        # By the monotonic clock: when the token is renewed, when it ends, until when the last failure is the answer.
        self._renew_at = self._end_at = self._retry_at = 0.0
        # The number of the attempt that is under way, 0 while none is: an answer that comes too late is of an old one.
        self._attempt = self._attempts = 0
        self._limit: threading.Timer
        self._waiting: list[Settle] = []

    def call_credentials(self) -> grpc.CallCredentials:
        """Credentials that have every call carry a token: for a channel, together with TLS, or for single calls."""
        return grpc.metadata_call_credentials(_Plugin(self), "token")

    def get(self) -> str:
        """A valid token; waits for it where there is none. Raises TokenError."""
        done = threading.Event()
        answers: list[tuple[str | None, Exception | None]] = []
        self.request(lambda token, error: (answers.append((token, error)), done.set()))
        done.wait()
        token, error = answers[0]
        if error is not None:
            raise error
        return token or ""

    def request(self, settle: Settle) -> None:
        """Have `settle` called once with a valid token or an error: at once, or from another thread; never waits."""
        with self._lock:
            now = time.monotonic()
            token = self._token if now < self._end_at else None
            error = self._error if token is None and now < self._retry_at else None
            if token is None and error is None:
                self._waiting.append(settle)
            if now >= max(self._renew_at, self._retry_at) and not self._attempt:
                self._begin()
        if token is not None or error is not None:
            settle(token, error)

    def _begin(self) -> None:
        self._attempts += 1
        threading.Thread(target=self._fetch, args=(self._attempts,), name="token", daemon=True).start()
        # The server may send a byte now and then for ever, which no timeout of a socket bounds.
        self._limit = threading.Timer(self._endpoint.timeout_s, self._end, (self._attempts, self._tell_late()))
        self._limit.daemon = True
        self._limit.start()
        self._attempt = self._attempts

    def _tell_late(self) -> TokenError:
        return TokenError(f"token endpoint {self._endpoint.uri}: no token within {self._endpoint.timeout_s:g} s")

    def _fetch(self, attempt: int) -> None:
        try:
            token = self._endpoint.fetch()
        except TokenError as error:
            self._end(attempt, error)
        except Exception as error:
            self._end(attempt, TokenError(f"token endpoint {self._endpoint.uri}: {error!r}"))
        else:
            self._end(attempt, token)

    def _end(self, attempt: int, outcome: Token | TokenError) -> None:
        with self._lock:
            if attempt != self._attempt:
                return
            self._attempt = 0
            self._limit.cancel()
            if isinstance(outcome, Token):
                self._keep(outcome)
            else:
                self._error, self._retry_at = outcome, time.monotonic() + RETRY_AFTER_S
            waiting, self._waiting = self._waiting, []
        text, error = (outcome.text, None) if isinstance(outcome, Token) else (None, outcome)
        for settle in waiting:
            settle(text, error)

    def _keep(self, token: Token) -> None:
        now = time.monotonic()
        self._token, self._error, self._retry_at = token.text, None, 0.0
        self._end_at = now + token.lifetime_s
        self._renew_at = self._end_at - min(RENEWED_PART * token.lifetime_s, RENEWED_AHEAD_S)


class _Plugin(grpc.AuthMetadataPlugin):
    """Puts a source's tokens into calls."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        def settle(token: str | None, error: Exception | None) -> None:
            callback((("authorization", f"Bearer {token}"),) if error is None else (), error)

        self._source.request(settle)


def _read_answer(uri: str, status: int, answer: bytes) -> Token:
    """The token of an answer (RFC 6749, section 5)."""
    try:
        data = json.loads(answer)
    except ValueError:
        data = None
    if not isinstance(data, Mapping):
        raise TokenError(f"token endpoint {uri}: status {status}: expected a JSON object")
    if status != http.HTTPStatus.OK:
        reason = ": ".join(str(data[key]) for key in ("error", "error_description") if key in data)
        raise TokenError(f"token endpoint {uri}: status {status}: {reason}")
    text, kind, lifetime = data.get("access_token"), data.get("token_type"), data.get("expires_in", DEFAULT_LIFETIME_S)
    if not isinstance(text, str) or not TOKEN_FORM.fullmatch(text) or str(kind).lower() != "bearer":
        raise TokenError(f"token endpoint {uri}: expected an access_token of the type Bearer, given {kind!r}")
    try:
        return Token(text, max(float(lifetime), 0.0))
    except (TypeError, ValueError):
        return Token(text, DEFAULT_LIFETIME_S)
