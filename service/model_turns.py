"""Has operations on one model take turns; those on different models do not wait for each other."""

import contextlib
import threading
from collections.abc import Iterator


class ModelTurns:
    """The turns of all models, by name; safe to use from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._operations = 0

    @property
    def are_taken(self) -> bool:
        """Whether any operation is under way, or waits for its turn."""
        return self._operations > 0

    @contextlib.contextmanager
    def take(self, name: str) -> Iterator[None]:
        """One operation on a model, once those before it are done."""
        with self._count_operation(), self._find_turn(name):
            yield

    @contextlib.contextmanager
    def try_to_take(self, name: str) -> Iterator[bool]:
        """As take, if nobody else has the turn; False when somebody does."""
        turn = self._find_turn(name)
        with self._count_operation():
            is_taken = turn.acquire(blocking=False)
            try:
                yield is_taken
            finally:
                if is_taken:
                    turn.release()

    @contextlib.contextmanager
    def _count_operation(self) -> Iterator[None]:
        with self._lock:
            self._operations += 1
        try:
            yield
        finally:
            with self._lock:
                self._operations -= 1

    def _find_turn(self, name: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())
