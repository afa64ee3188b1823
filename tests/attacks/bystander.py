"""A client that does nothing wrong: it calls without pause while others attack, and notes every call that fails."""

import contextlib
import threading
import time

import grpc
import numpy as np
from inference_messages import build_request, read_raw

from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub

CALL_TIMEOUT_S = 60.0
WAIT_TIMEOUT_S = 60.0
# Between two calls; the processors are shared with the attack.
PAUSE_S = 0.001


class Bystander:
    """Calls `identity` in a thread of its own until closed, over one connection that must last unless it `retries`.

    Parameters
    ----------
    credentials
        Those of grpcio's channels; plain text without.
    retries
        Whether gRPC may move a call that no server has seen to another connection, as it does for clients that set
        nothing. A call that begins in the moment in which its connection is told to go needs that, whoever serves it.
    """

    def __init__(self, address, credentials=None, *, retries=False):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", int(retries))]
        self._channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._stopped = threading.Event()
        self._rested = threading.Lock()
        self._changed = threading.Condition()
        self._count = 0
        self.failures = []
        self._thread = threading.Thread(target=self._run, name="bystander")
        self._thread.start()

    def _run(self):
        nonce = 0
        while not self._stopped.wait(PAUSE_S):
            with self._rested:
                nonce += 1
                wrong = self._call(nonce)
            with self._changed:
                self._count += not wrong
                self.failures += [wrong] if wrong else []
                self._changed.notify_all()

    def _call(self, nonce):
        """What was wrong with one call, if anything."""
        rows = np.full((1, 4), nonce, np.float32)
        try:
            reply = self._stub.ModelInfer(build_request("identity", {"input": rows}), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"call {nonce}: {error.code()} {error.details()}"
        given = read_raw(reply.raw_output_contents[0], "FP32", (1, 4))
        return "" if np.array_equal(given, rows) else f"call {nonce}: given {given.tolist()}"

    def await_calls(self, count=5):
        """Return when so many more calls have been answered rightly; a failure fails the test."""
        with self._changed:
            target = self._count + count
            self._changed.wait_for(lambda: self._count >= target or self.failures, WAIT_TIMEOUT_S)
            assert not self.failures, self.failures
            assert self._count >= target, "the bystander is not served any more"

    def await_seconds(self, seconds):
        """Return when calls have been answered rightly for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.await_calls(1)

    @contextlib.contextmanager
    def resting(self):
        """Make no call for the time of a block."""
        with self._rested:
            yield

    def close(self):
        """Stop calling and hang up."""
        self._stopped.set()
        self._thread.join()
        self._channel.close()
