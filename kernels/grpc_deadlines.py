"""The deadlines of running calls, the next one first."""

import heapq
import itertools

# Below so many, those of calls that have ended are not worth removing.
MIN_DISCARDED = 64


class Deadlines:
    """A heap of calls by deadline, in seconds of the monotonic clock; belongs to one thread.

    A call that ends is forgotten at once, and its place in the heap is freed once such places are many: a client
    that gives its calls long deadlines does not make them stay.
    """

    def __init__(self):
        self._heap: list[list] = []
        self._entries: dict[object, list] = {}
        # Two calls with the same deadline are never compared.
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, call: object, deadline: float) -> None:
        """Remember a call that is not remembered yet."""
        entry = self._entries[call] = [deadline, next(self._order), call]
        heapq.heappush(self._heap, entry)

    def discard(self, call: object) -> None:
        """Forget a call, if it is there."""
        entry = self._entries.pop(call, None)
        if entry is None:
            return
        entry[-1] = None
        discarded = len(self._heap) - len(self._entries)
        if discarded >= MIN_DISCARDED and discarded > len(self._entries):
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def pop_expired(self, now: float) -> list[object]:
        """Forget the calls whose deadline has passed, and return them."""
        expired = []
        while self._heap and self._heap[0][0] <= now:
            call = heapq.heappop(self._heap)[-1]
            if call is not None:
                del self._entries[call]
                expired.append(call)
        return expired

    def seconds_left(self, now: float, limit: float) -> float:
        """How long nothing can expire, at most `limit`."""
        return min(max(self._heap[0][0] - now, 0.0), limit) if self._heap else limit
