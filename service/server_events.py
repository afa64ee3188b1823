"""What the main thread of a server waits for: the signals that end it, and the word that its models are loaded."""

import os
import signal
from enum import IntEnum
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ServerEvent(IntEnum):
    """What may happen, as a byte in a pipe: a signal's number is never 0."""

    LOADED = 0
    STOP = 1


class ServerEvents:
    """Events in their order; one for each process, made and waited for in its main thread.

    A signal goes into a pipe by itself. A handler in Python would run only once the main thread does, and a signal that
    comes in the moment before that goes to sleep does not wake it.
    """

    def __init__(self):
        self._events, self._source = os.pipe()
        os.set_blocking(self._source, False)
        signal.set_wakeup_fd(self._source, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, _take_signal)

    def tell_loaded(self) -> None:
        """Have `wait` return LOADED. From any thread."""
        os.write(self._source, bytes([ServerEvent.LOADED]))

    def wait(self) -> ServerEvent:
        """Return the next event once there is one."""
        told = os.read(self._events, 1)[0]
        return ServerEvent.LOADED if told == ServerEvent.LOADED else ServerEvent.STOP


def _take_signal(number: int, frame: FrameType | None) -> None:
    """Do nothing: the pipe has the signal. Without a handler it would end the process."""
