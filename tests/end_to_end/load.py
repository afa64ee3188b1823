"""The tests' load: asyncio clients that call without pause, nonce in and nonce out, and count what becomes of calls."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager

import grpc
import numpy as np
from inference_messages import build_request, read_raw

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.models import OFFSET

CALL_TIMEOUT_S = 60.0
WAIT_TIMEOUT_S = 60.0
OK = "OK"
WRONG = "WRONG"


class LoopThread:
    """One event loop in one thread for all asyncio clients of the tests; more of them get in each other's way."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="clients")
        self._thread.start()

    def run(self, coroutine, timeout_s=WAIT_TIMEOUT_S):
        """Run a coroutine in the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def close(self):
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Load:
    """Callers of `adder` and what they have seen.

    Parameters
    ----------
    callers, connections
        Calls at a time, over so many connections.
    is_patient
        Wait for a connection and call again after a failure; otherwise a caller ends with its first failure.
    channel_options
        Of grpcio, with underscores.
    spoil
        Changes the request of every second call, which is then to be refused; those count under their own status.
    """

    def __init__(
        self,
        target,
        *,
        callers=8,
        connections=2,
        version="",
        metadata=(),
        is_patient=True,
        channel_options=None,
        spoil=None,
    ):
        self._target = target
        self._callers = callers
        self._connections = connections
        self._version = version
        self._metadata = metadata
        self._is_patient = is_patient
        self._channel_options = channel_options or {}
        self._spoil = spoil
        self._nonces = itertools.count(1)
        self._is_over = False
        self._changed = threading.Condition()
        self.longest_s = 0.0
        self.outcomes = Counter()
        self.versions = Counter()
        # (status, text) of every call that was not answered rightly, those of `spoil` apart.
        self.failures = []
        self.refusals = []

    async def run(self):
        """Call until it is over."""
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(self._target.connect_async(**self._channel_options))
                for _ in range(self._connections)
            ]
            stubs = [GRPCInferenceServiceStub(channel) for channel in channels]
            await asyncio.gather(*(self._call(stubs[place % len(stubs)]) for place in range(self._callers)))

    async def _call(self, stub):
        while not self._is_over:
            nonce = next(self._nonces)
            is_spoilt = self._spoil is not None and nonce % 2 == 0
            request, begun = make_request(nonce, version=self._version), time.monotonic()
            outcome = await self._ask(stub, self._spoil(request) if is_spoilt else request, nonce, is_spoilt)
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            if outcome != OK and not is_spoilt and not self._is_patient:
                return

    async def _ask(self, stub, request, nonce, is_spoilt):
        try:
            reply = await stub.ModelInfer(
                request, timeout=CALL_TIMEOUT_S, wait_for_ready=self._is_patient, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            return self._record(error.code().name, error.details(), None, is_spoilt)
        wrong = find_wrong(reply, nonce)
        return self._record(WRONG if wrong else OK, wrong, reply.model_version, is_spoilt)

    def _record(self, outcome, text, version, is_spoilt):
        with self._changed:
            if is_spoilt:
                self.refusals.append((outcome, text))
            else:
                self.outcomes[outcome] += 1
                self.versions[version] += 1
                if outcome != OK:
                    self.failures.append((outcome, text))
            self._changed.notify_all()
        return outcome

    def stop(self):
        """Start no more calls; those under way come back."""
        self._is_over = True

    def wait_for_more(self, count, timeout_s=WAIT_TIMEOUT_S):
        """Return when `count` more calls have been answered rightly, and by which versions those were."""
        with self._changed:
            before = Counter(self.versions)
            target = self.outcomes[OK] + count
            assert self._changed.wait_for(lambda: self.outcomes[OK] >= target, timeout_s), self.outcomes
            return self.versions - before

    def await_failures(self, count, timeout_s=WAIT_TIMEOUT_S):
        """Return when so many calls have failed in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.failures) >= count, timeout_s), self.outcomes


def make_request(nonce, *, model="adder", version=""):
    """A request of one row that nobody else sends."""
    row = np.arange(nonce, nonce + 4, dtype=np.int64).reshape(1, 4)
    return build_request(model, {"input": row}, version=version, request_id=f"nonce-{nonce}")


def find_wrong(reply, nonce):
    """What is wrong with an answer to `make_request`; empty when it is the caller's own."""
    expected = np.arange(nonce, nonce + 4).reshape(1, 4) + int(reply.model_version) * OFFSET
    given = read_raw(reply.raw_output_contents[0], reply.outputs[0].datatype, tuple(reply.outputs[0].shape))
    if reply.id != f"nonce-{nonce}" or not np.array_equal(given, expected):
        return f"nonce {nonce}: given {reply.id} {given.tolist()}"
    return ""


@contextmanager
def run_load(clients, target, **options):
    """Call without pause while the block runs; yields the Load. At the end every call has come back."""
    load = Load(target, **options)
    running = asyncio.run_coroutine_threadsafe(load.run(), clients.loop)
    try:
        yield load
    finally:
        load.stop()
        running.result(CALL_TIMEOUT_S + WAIT_TIMEOUT_S)
