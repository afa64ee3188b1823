"""The native transport's threads all at once: load, cancellations, swapped models, vanishing peers, a stop amid it."""

import threading

import grpc
import numpy as np
import onnx_models
from bound_service import SERVICE, WAIT_S, BoundService, infer_by
from inference_messages import decode_reply, encode_request

from kernels.session import Session

CALLERS = 4
CALLS = 1500
ENDED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def message(nonce, rows=1):
    """A request to `same` that says which it is."""
    return encode_request("same", {"input": np.full((rows, 4), nonce, np.float32)})


def refuse_unless_ended(error):
    """Let pass what a call is told that the server's end or its own caller has ended."""
    assert error.code() in ENDED, error


class Crowd:
    """Threads that do something until they are told to stop; what they find wrong is kept."""

    def __init__(self):
        self.is_over = threading.Event()
        self.wrong = []
        self._threads = []

    def add(self, act, *arguments):
        """Have a thread act again and again, with a number that is new each time."""
        thread = threading.Thread(target=self._repeat, args=(act, len(self._threads), arguments))
        self._threads.append(thread)
        thread.start()

    def _repeat(self, act, place, arguments):
        turn = 0
        while not self.is_over.is_set():
            try:
                act(1000 * place + turn % 1000, *arguments)
            except Exception as error:
                self.wrong.append(error)
                return
            turn += 1

    def end(self):
        """Return once all have."""
        self.is_over.set()
        for thread in self._threads:
            thread.join()


def call_and_check(nonce, infer, answered):
    """One call, whose reply must be its own."""
    try:
        reply = infer(message(nonce, 1 + nonce % 3), timeout=WAIT_S)
    except grpc.RpcError as error:
        refuse_unless_ended(error)
        return
    assert (decode_reply(reply)["output"] == nonce).all()
    answered.release()


def call_and_cancel(nonce, infer):
    """A few calls at once, given up at any moment."""
    calls = [infer.future(message(nonce), timeout=WAIT_S) for _ in range(8)]
    for call in calls:
        call.cancel()


def talk(nonce, channel):
    """A stream of a few requests, whose replies come in order; every third one is left in the middle."""
    exchange = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    call = exchange(iter([message(nonce + place) for place in range(5)]), timeout=WAIT_S)
    try:
        next(call)
        if nonce % 3 == 0:
            call.cancel()
        assert len(list(call)) == 4
    except grpc.RpcError as error:
        refuse_unless_ended(error)


def come_and_go(nonce, service):
    """A connection that ends in the middle of a call."""
    with service.connect() as channel:
        infer_by(channel).future(message(nonce), timeout=WAIT_S)


def test_everything_at_once_answers_each_with_its_own_and_gives_all_back(engine, tmp_path):
    """Until the server stops amid all of it."""
    path = onnx_models.save(onnx_models.identity(), tmp_path, "same")
    engine.load("same", 1, Session(path), max_batch_size=8, instance_count=2)
    crowd, answered = Crowd(), threading.Semaphore(0)
    with BoundService(engine, io_threads=2) as service:
        channels = [service.connect() for _ in range(3)]
        for place in range(CALLERS):
            crowd.add(call_and_check, infer_by(channels[place % 2]), answered)
        crowd.add(call_and_cancel, infer_by(channels[0]))
        crowd.add(talk, channels[1])
        crowd.add(come_and_go, service)
        crowd.add(lambda nonce: engine.load("same", 1, Session(path), max_batch_size=3 + nonce % 8))
        for _ in range(CALLS):
            assert answered.acquire(timeout=WAIT_S), crowd.wrong
        stopped = service.server.stop(0.5)
        assert stopped.wait(WAIT_S)
        crowd.end()
        statistics = service.server._transport.statistics()
        for channel in channels:
            channel.close()
    assert crowd.wrong == []
    assert statistics == {"connections": 0, "buffered_bytes": 0}
