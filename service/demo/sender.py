"""Sends held-out digits through the gateway with the generated stubs, one a request, over several connections."""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import grpc

from service.client import Credentials, build_request, explain, open_channel, read_response
from service.demo.digits import DemoError, Scans
from service.demo.training import MODEL
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub

TIMEOUT_S = 5.0
REPORT_S = 0.1
# After so many failures a connection sends no more: there is nothing to wait for.
MAX_FAILURES = 3


@dataclass(frozen=True)
class Outcome:
    """What came of one request.

    Attributes
    ----------
    started_s, latency_s
        On the monotonic clock, in seconds.
    version
        Who answered; 0 when nobody did.
    failure
        Why nobody did; empty otherwise.
    """

    started_s: float
    latency_s: float
    version: int = 0
    is_correct: bool = False
    failure: str = ""


class DigitSender:
    """A few connections, each with one request under way at a time; use it as a context.

    Parameters
    ----------
    target
        The gateway's host and port.
    scans
        Sent in turn, again and again.
    """

    def __init__(self, target: str, credentials: Credentials, scans: Scans, connections: int = 4) -> None:
        self._target = target
        rows = ({"input": image[None]} for image in scans.images)
        self._requests = [build_request(MODEL, inputs, outputs=("label",)) for inputs in rows]
        self._labels = scans.labels.tolist()
        self._channels = [open_channel(target, credentials) for _ in range(connections)]
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="sender")
        self._stopped = threading.Event()

    def __enter__(self) -> "DigitSender":
        return self

    def connect(self) -> None:
        """Wait until every connection stands, so that no latency holds a handshake; DemoError when one does not."""
        for channel in self._channels:
            try:
                grpc.channel_ready_future(channel).result(TIMEOUT_S)
            except grpc.FutureTimeoutError:
                raise DemoError(f"no connection to {self._target} within {TIMEOUT_S:.0f} s") from None

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._threads.shutdown()
        for channel in self._channels:
            channel.close()

    def send(
        self,
        count: int,
        report: Callable[[int], object] = lambda _: None,
        midway: tuple[int, Callable[[], object]] | None = None,
    ) -> list[Outcome]:
        """Send `count` requests, fewer when many fail, and return what came of each, in the order of their ends.

        Parameters
        ----------
        report
            Told now and then how many have ended.
        midway
            A number of requests, and what to call once so many have been sent, while the others go on.
        """
        numbers = itertools.count()
        outcomes: list[Outcome] = []
        reached = threading.Event()
        action_at, action = midway or (count, None)

        def send_some(channel: grpc.Channel) -> None:
            stub = GRPCInferenceServiceStub(channel)
            failures = 0
            while (number := next(numbers)) < count and failures < MAX_FAILURES and not self._stopped.is_set():
                if number == action_at:
                    reached.set()
                outcome = self._send_one(stub, number % len(self._requests))
                failures += bool(outcome.failure)
                outcomes.append(outcome)

        futures = [self._threads.submit(send_some, channel) for channel in self._channels]
        _watch(futures, lambda: report(len(outcomes)), reached if action else None)
        if action:
            action()
        _watch(futures, lambda: report(len(outcomes)))
        for future in futures:
            future.result()
        return outcomes

    def _send_one(self, stub: GRPCInferenceServiceStub, index: int) -> Outcome:
        started_s = time.monotonic()
        try:
            response = stub.ModelInfer(self._requests[index], timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return Outcome(started_s, time.monotonic() - started_s, failure=explain(error))
        latency_s = time.monotonic() - started_s
        answer = read_response(response)
        is_correct = int(answer.outputs["label"][0]) == self._labels[index]
        return Outcome(started_s, latency_s, int(answer.version), is_correct)


def _watch(futures: list[Future], report: Callable[[], object], until: threading.Event | None = None) -> None:
    """Report until all have ended, or until the event."""
    while True:
        _, running = wait(futures, timeout=0 if until else REPORT_S)
        report()
        if not running or (until and until.wait(REPORT_S)):
            return
