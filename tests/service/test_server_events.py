"""service.server_events: a server's main thread hears of every signal, whenever it comes."""

import os
import signal
import threading

import pytest

from service.server_events import STOP_SIGNALS, ServerEvent, ServerEvents


@pytest.fixture
def events():
    """Events of this process, whose own handlers come back afterwards."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield ServerEvents()
    descriptor = signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.close(descriptor)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_before_the_wait_is_not_lost(events, number):
    """The thread need not sleep yet."""
    os.kill(os.getpid(), number)
    assert events.wait() is ServerEvent.STOP


def test_signal_to_another_thread_ends_the_wait(events):
    """The system may give it to any thread of the process, and the main one goes on sleeping."""
    sender = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
    sender.start()
    assert events.wait() is ServerEvent.STOP
    sender.join()


def test_events_come_in_their_order(events):
    """A server that was told to stop before it had loaded hears both."""
    os.kill(os.getpid(), signal.SIGTERM)
    events.tell_loaded()
    assert [events.wait(), events.wait()] == [ServerEvent.STOP, ServerEvent.LOADED]
