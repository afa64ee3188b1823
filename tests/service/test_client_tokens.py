"""service.client_tokens, at token endpoints that fail in every way: late, wrong, silent, or slow for ever."""

import asyncio
import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from urllib.parse import parse_qs, unquote_plus

import grpc
import pytest

from service.client_tokens import RENEWED_AHEAD_S, TokenEndpoint, TokenError, TokenSource
from tests.authorities import Authority

SECRET = "s e:c%r/et"
CALL_TIMEOUT_S = 60


class Endpoint:
    """A token endpoint on this machine that counts who asks and answers as it is told."""

    def __init__(self, folder):
        self.asked = []
        self.lifetime_s = 3600
        self.answer = None
        self.gate = threading.Event()
        self.gate.set()
        authority = Authority("login")
        pair = authority.serve()
        for name, content in (("ca.pem", authority.pem), ("login.pem", pair.chain), ("login.key", pair.key)):
            (folder / name).write_bytes(content)
        self.authority = folder / "ca.pem"
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "login.pem", folder / "login.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _make_handler(endpoint):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                endpoint.asked.append((self.headers["authorization"], parse_qs(body)))
                number = len(endpoint.asked)
                endpoint.gate.wait(CALL_TIMEOUT_S)
                token = {"access_token": f"token-{number}", "token_type": "Bearer", "expires_in": endpoint.lifetime_s}
                status, content = endpoint.answer or (200, json.dumps(token).encode())
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        return Handler

    @property
    def uri(self):
        """Where it is."""
        return f"https://127.0.0.1:{self._server.server_port}/token"

    def make_source(self, **options):
        """A source of its tokens."""
        given = {"uri": self.uri, "client_id": "us/er", "client_secret": SECRET, "authority": self.authority}
        return TokenSource(TokenEndpoint(**{**given, **options}))

    def close(self):
        """End it."""
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint(tmp_path):
    """A token endpoint."""
    endpoint = Endpoint(tmp_path)
    yield endpoint
    endpoint.close()


@pytest.fixture(scope="module")
def echo():
    """A server that answers with the token that it was shown."""
    authority = Authority("echo")
    pair = authority.serve()

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            shown = dict(details.invocation_metadata).get("authorization", "-")
            return grpc.unary_unary_rpc_method_handler(lambda request, context: shown.encode())

    server = grpc.server(ThreadPoolExecutor(8), handlers=[Echo()])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pair.key, pair.chain)]))
    server.start()
    yield f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority.pem)
    server.stop(None).wait()


@contextmanager
def open_method(echo, source):
    """A method of the echo, on a channel that shows a source's tokens."""
    address, tls = echo
    with grpc.secure_channel(address, grpc.composite_channel_credentials(tls, source.call_credentials())) as channel:
        yield channel.unary_unary("/a/b")


def await_answer(method, is_wanted):
    """Call until an answer or an error is the wanted one, and return all of them."""
    until, seen = time.monotonic() + CALL_TIMEOUT_S, []
    while not seen or not is_wanted(seen[-1]):
        assert time.monotonic() < until, seen
        try:
            seen.append(method(b"", timeout=CALL_TIMEOUT_S))
        except grpc.RpcError as error:
            seen.append(error)
        time.sleep(0.02)
    return seen


def test_token_is_asked_for_as_the_standard_has_it(endpoint):
    """Who asks, in the header, each part encoded; what is asked for in the body, and nothing that was not given."""
    source = endpoint.make_source(scope="a b", resource="https://r/", audience="aud")
    assert source.get() == "token-1"
    header, body = endpoint.asked[0]
    scheme, pair = header.split()
    parts = base64.b64decode(pair).decode().split(":")
    assert (scheme, [unquote_plus(part) for part in parts]) == ("Basic", ["us/er", SECRET])
    assert body == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "resource": ["https://r/"],
        "audience": ["aud"],
    }
    endpoint.make_source().get()
    assert endpoint.asked[1][1] == {"grant_type": ["client_credentials"]}


def test_token_is_shared_by_all_who_call(endpoint, echo):
    """Threads that begin at once wait for one answer."""
    endpoint.gate.clear()
    with open_method(echo, endpoint.make_source()) as method:
        calls = [method.future(b"", timeout=CALL_TIMEOUT_S) for _ in range(30)]
        endpoint.gate.set()
        assert {call.result() for call in calls} == {b"Bearer token-1"}
        with ThreadPoolExecutor(8) as pool:
            answers = set(pool.map(lambda _: method(b"", timeout=CALL_TIMEOUT_S), range(200)))
    assert answers == {b"Bearer token-1"}
    assert len(endpoint.asked) == 1


def test_asyncio_calls_do_not_hold_up_their_loop(endpoint, echo):
    """While the token is awaited the loop goes on, and a call may be given up."""
    endpoint.gate.clear()
    address, tls = echo
    source = endpoint.make_source()

    async def run():
        credentials = grpc.composite_channel_credentials(tls, source.call_credentials())
        async with grpc.aio.secure_channel(address, credentials) as channel:
            method = channel.unary_unary("/a/b")
            hasty, patient = method(b"", timeout=0.2), method(b"", timeout=CALL_TIMEOUT_S)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await hasty
            assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            endpoint.gate.set()
            return await patient

    assert asyncio.run(run()) == b"Bearer token-1"


def test_token_near_its_end_is_used_while_the_next_is_got(endpoint, echo):
    """Nobody waits for a renewal, and one is under way at a time."""
    source = endpoint.make_source()
    with open_method(echo, source) as method:
        assert method(b"", timeout=CALL_TIMEOUT_S) == b"Bearer token-1"
        endpoint.gate.clear()
        source._renew_at = 0.0
        assert set(await_answer(method, lambda _: len(endpoint.asked) == 2)) == {b"Bearer token-1"}
        assert {method(b"", timeout=CALL_TIMEOUT_S) for _ in range(20)} == {b"Bearer token-1"}
        endpoint.gate.set()
        await_answer(method, lambda answer: answer == b"Bearer token-2")
    assert len(endpoint.asked) == 2


def test_long_lived_token_is_renewed_shortly_before_its_end(endpoint):
    """Not when a fifth of a day is left."""
    endpoint.lifetime_s = 86400
    source = endpoint.make_source()
    source.get()
    assert source._end_at - source._renew_at == RENEWED_AHEAD_S


def test_failed_renewal_leaves_the_token_that_is_valid(endpoint, echo):
    """Calls fail when its life is over, and not before."""
    endpoint.lifetime_s = 4
    with open_method(echo, endpoint.make_source()) as method:
        assert method(b"", timeout=CALL_TIMEOUT_S) == b"Bearer token-1"
        endpoint.answer = (500, b"{}")
        seen = await_answer(method, lambda answer: isinstance(answer, grpc.RpcError))
        assert set(seen[:-1]) == {b"Bearer token-1"}
        assert (seen[-1].code(), "status 500" in seen[-1].details()) == (grpc.StatusCode.UNAVAILABLE, True)
        assert len(endpoint.asked) >= 2
        endpoint.answer = None
        await_answer(method, lambda answer: isinstance(answer, bytes))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (401, b'{"error": "invalid_client", "error_description": "no such client"}'),
            "401: invalid_client: no such cl",
        ),
        ((400, b'{"error": "invalid_scope"}'), "status 400: invalid_scope"),
        ((503, b"<html>"), "status 503: expected a JSON object"),
        ((200, b"[]"), "status 200: expected a JSON object"),
        ((200, b"{}"), "expected an access_token of the type Bearer"),
        (
            (200, b'{"access_token": "a", "token_type": "mac"}'),
            "expected an access_token of the type Bearer, given 'mac'",
        ),
        ((200, b'{"access_token": "a\\nb: c", "token_type": "bearer"}'), "expected an access_token"),
        ((302, b"{}"), "status 302"),
    ],
)
def test_answer_that_is_no_token_fails_calls_with_the_reason(endpoint, echo, answer, words):
    """As UNAVAILABLE; the endpoint is not asked again for each of them."""
    endpoint.answer = answer
    source = endpoint.make_source()
    with open_method(echo, source) as method:
        for _ in range(20):
            with pytest.raises(grpc.RpcError) as raised:
                method(b"", timeout=CALL_TIMEOUT_S)
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
            assert words in raised.value.details()
            assert SECRET not in raised.value.details()
    assert len(endpoint.asked) < 10
    assert SECRET not in repr(source._endpoint)


def test_endpoint_that_never_answers_fails_calls_in_time(endpoint, echo):
    """A call without a deadline does not hang, and the next one is not held up by the attempt that does."""
    endpoint.gate.clear()
    source = endpoint.make_source(timeout_s=0.3)
    with open_method(echo, source) as method:
        with pytest.raises(grpc.RpcError) as raised:
            method(b"")
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        endpoint.gate.set()
        assert await_answer(method, lambda answer: isinstance(answer, bytes))[-1] != b"-"


def test_endpoint_that_sends_a_byte_at_a_time_fails_calls_in_time(tmp_path):
    """No single wait is long, but all of them are bounded together."""
    endpoint = TokenEndpoint(uri="https://127.0.0.1:1/", client_id="a", client_secret="b", timeout_s=0.3)
    done = threading.Event()
    # What a server does that goes on for ever, seen from here.
    object.__setattr__(endpoint, "fetch", lambda: done.wait(CALL_TIMEOUT_S))
    source = TokenSource(endpoint)
    try:
        with pytest.raises(TokenError, match=r"no token within 0\.3 s"):
            source.get()
    finally:
        done.set()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/token", "https:///token", "token"])
def test_endpoint_without_tls_is_refused(uri):
    """The secret would be there for all to read."""
    source = TokenSource(TokenEndpoint(uri=uri, client_id="a", client_secret="b"))
    with pytest.raises(TokenError, match="expected an https URL"):
        source.get()


@pytest.mark.parametrize(("lifetime", "kept_s"), [(None, 300), ("soon", 300), ("60", 60), (-5, 0)])
def test_lifetime_that_is_not_told_is_taken_for_short(endpoint, lifetime, kept_s):
    """RFC 6749 only recommends to tell it."""
    endpoint.lifetime_s = lifetime
    source = endpoint.make_source()
    before = time.monotonic()
    assert source.get() == "token-1"
    assert source._end_at <= before + kept_s + (time.monotonic() - before)
    assert source._end_at >= before + kept_s - (time.monotonic() - before)
