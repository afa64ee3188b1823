"""Handlers of raw methods: what they do is the same in every test."""

import threading
import time

import grpc

from tests.kernels.raw_service import WAIT_S


def unary(function, **codecs):
    """A handler of one request and one reply."""
    return grpc.unary_unary_rpc_method_handler(function, **codecs)


def echo(request, context):
    """The request again."""
    return request


ECHO = {"Echo": unary(echo)}


class Gate:
    """A handler that waits until it is opened, and tells when it was entered."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def pass_through(self, request, context):
        """A unary method."""
        self.entered.release()
        assert self.opened.wait(WAIT_S)
        return request

    def stream(self, requests, context):
        """A method that streams both ways; it reads until its client has finished."""
        self.entered.release()
        yield from requests

    def await_entered(self, times=1):
        """Wait until handlers run."""
        for _ in range(times):
            assert self.entered.acquire(timeout=WAIT_S)


def wait_until(condition):
    """Return as soon as something holds."""
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def fail(request, context):
    """Break."""
    raise ValueError("broken handler")
