"""The native transport's end: what is under way is finished, and what is idle does not hold it up."""

import queue
import socket
import threading

import grpc
import numpy as np
import onnx_models
import pytest
from bound_service import SERVICE, WAIT_S, BoundService, infer_by
from inference_messages import encode_request

GRACE_S = 90.0
# An idle stream is given a second, and a sweep may be a little late; more so on a machine that is busy otherwise.
PROMPT_S = 30.0


def message(name):
    """A request of one row."""
    return encode_request(name, {"input": np.zeros((1, 4), np.float32)})


def open_stream(channel, requests):
    """A ModelStreamInfer that sends what a queue gives, None at its end."""
    exchange = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    return exchange(iter(requests.get, None), timeout=WAIT_S)


def test_idle_stream_is_ended_and_does_not_hold_the_stop_up(engine, load):
    """Its client is told that the server is stopping."""
    load(onnx_models.identity(), "same", max_batch_size=8)
    requests = queue.SimpleQueue()
    with BoundService(engine) as service, service.connect() as channel:
        requests.put(message("same"))
        call = open_stream(channel, requests)
        next(call)
        assert service.server.stop(GRACE_S).wait(PROMPT_S)
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        requests.put(None)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNAVAILABLE, "the server is stopping")


def test_stream_that_waits_for_a_reply_gets_it(engine, load):
    """It is not idle, however long its model takes."""
    load(onnx_models.slow(1_000_000), "slow", max_batch_size=1)
    requests = queue.SimpleQueue()
    with BoundService(engine) as service, service.connect() as channel:
        requests.put(message("slow"))
        call = open_stream(channel, requests)
        while not engine.statistics("slow", 1)["executions"] and not engine.statistics("slow", 1)["running"]:
            pass
        stopped = service.server.stop(GRACE_S)
        requests.put(None)
        assert len(list(call)) == 1
        assert stopped.wait(GRACE_S)


def test_calls_of_a_client_that_has_not_heard_of_the_stop_are_answered(engine, load):
    """Those that run, and those that come while it is told."""
    load(onnx_models.slow(), "slow", max_batch_size=1)
    with BoundService(engine) as service, service.connect() as channel:
        calls = [infer_by(channel).future(message("slow"), timeout=WAIT_S) for _ in range(8)]
        while not engine.statistics("slow", 1)["running"]:
            pass
        stopped = service.server.stop(GRACE_S)
        codes = [call.exception(WAIT_S) and call.exception().code() for call in calls]
        assert codes[0] is None
        assert set(codes) <= {None, grpc.StatusCode.UNAVAILABLE}
        assert stopped.wait(GRACE_S)


def test_stop_without_calls_is_immediate(engine):
    """An idle connection is no work."""
    with BoundService(engine) as service, service.connect() as channel:
        grpc.channel_ready_future(channel).result(WAIT_S)
        assert service.server.stop(GRACE_S).wait(PROMPT_S)


def test_stop_with_a_connection_that_never_answers_takes_a_second(engine):
    """It is told to go, then told again, then left."""
    with BoundService(engine) as service:
        host, _, port = service.address.rpartition(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            assert silent.recv(1)
            assert service.server.stop(GRACE_S).wait(PROMPT_S)


def test_threads_end_with_the_server(engine):
    """Nothing of it stays behind."""
    before = set(threading.enumerate())
    with BoundService(engine) as service:
        service.server.stop(GRACE_S).wait(PROMPT_S)
    for thread in set(threading.enumerate()) - before:
        thread.join(PROMPT_S)
        assert not thread.is_alive()
