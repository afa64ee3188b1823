"""Sees versions off that nobody can reach any more: what they admitted is finished, then they are freed.

Batchers are drained, sections waited for once more (a cancellation may still look at them), and only then freed; and no
lock is held by who waits that a request could want.
"""

import threading

from cython cimport final, no_gc_clear
from libc.stdint cimport INT64_MAX, int64_t

from kernels.batcher cimport batcher, begin_closing, close_batcher, wait_idle, wait_released
from kernels.dispatch cimport place_request
from kernels.parking cimport DormantModel, take_parked
from kernels.request cimport request
from kernels.response_cache cimport forget_version
from kernels.sync cimport deadline_after, monotonic_ns, sections_wait
from kernels.version_counts cimport end_stay
from kernels.version_sequences cimport wait_for_sequences
from kernels.version_table cimport LoadedVersion, publish_elders

cdef enum:
    CLOSING_LOOK_NS = 50_000_000   # how soon whoever waits for sequences sees that the engine closes


@final
@no_gc_clear
cdef class Departures:
    """Belongs to an engine, which sets the core and the time for sequences."""

    def __cinit__(self, lock not None):
        self.lock = lock
        self.retiring = threading.Lock()
        self.apart = set()
        self.elders = []

    cdef int keep_elders(self, list replaced) except -1:
        """Have sequences of what is about to be replaced found beside the table, at any moment. Under the lock."""
        cdef list elders = [entry for entry in replaced if keeps_sequences(entry)]
        if elders:
            self.elders = self.elders + elders
            publish_elders(self.core, self.elders)
        return 0

    def drain(self, list_loaded, double timeout_s):
        """As Engine.drain, of the versions that `list_loaded` gives while none of them can go."""
        cdef int64_t until_ns = deadline_after(<int64_t> (timeout_s * 1e6))
        cdef bint idle = True
        cdef batcher* queue
        if not self.retiring.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            return False
        try:
            # Ensembles first: until they are idle, their steps get requests, which wait for no others.
            entries = sorted(list_loaded(), key=lambda entry: (<LoadedVersion> entry).ensemble is None)
            for entry in entries:
                begin_closing(&(<LoadedVersion> entry).queue)
            for entry in entries:
                queue = &(<LoadedVersion> entry).queue
                with nogil:
                    idle = wait_idle(queue, until_ns) and idle
        finally:
            self.retiring.release()
        return idle

    def retire(self, list entries):
        """As Engine.retire."""
        for entry in entries:
            if isinstance(entry, DormantModel):
                self.place_parked(entry)
                with self.lock:
                    self.apart.discard(entry)
        self.finish_sequences(entries)
        for entry in entries:
            if isinstance(entry, LoadedVersion):
                self.retire_version(entry)

    def finish_sequences(self, entries):
        """As Engine.finish_sequences."""
        cdef int64_t until_ns = deadline_after(self.drain_us)
        for entry in entries:
            self.await_sequences(entry, until_ns)

    cdef int place_parked(self, DormantModel woken) except -1:
        """Have what waited for a model go where its routes lead now."""
        cdef request* parked
        cdef request* following
        with nogil:
            parked = take_parked(&self.core.lot, &woken.core)
            while parked != NULL:
                following = parked.next
                parked.parked_ns = max(monotonic_ns() - parked.arrival_ns, 1)
                place_request(self.core, parked)
                parked = following
        return 0

    cdef int await_sequences(self, object entry, int64_t until_ns) except -1:
        """Let the sequences of a replaced version go on for their time, then have nothing lead to them any more."""
        cdef bint ended = False
        if not keeps_sequences(entry):
            return 0
        cdef LoadedVersion elder = entry
        cdef batcher* queue = &elder.queue
        with elder.awaiting:
            if entry not in self.elders:
                return 0
            while not ended and not self.closing and monotonic_ns() < until_ns:
                with nogil:
                    ended = wait_for_sequences(queue, min(until_ns, monotonic_ns() + CLOSING_LOOK_NS))
            with self.lock:
                self.elders = [other for other in self.elders if other is not entry]
                publish_elders(self.core, self.elders)
        return 0

    cdef int retire_version(self, LoadedVersion retired) except -1:
        """Finish what an unreachable version has admitted, then free its queue and session, if that was not done."""
        cdef batcher* queue = &retired.queue
        with self.retiring:
            if queue.pool == NULL:
                return 0
            with nogil:
                wait_released(queue)
                wait_idle(queue, INT64_MAX)
            with self.lock:
                with nogil:
                    # A cancellation may have found a request of this queue still running just before it became idle.
                    sections_wait(&self.core.sections)
                end_stay(retired)
            with nogil:
                close_batcher(queue)
                forget_version(&self.core.cache, queue.serial)
            queue.pool = NULL
            retired.sessions = ()
            retired.ensemble = None
            retired.interface = None
            retired.sequences = None
            retired.uneven = None
            self.apart.discard(retired)
        return 0


cdef bint keeps_sequences(object entry):
    return isinstance(entry, LoadedVersion) and (<LoadedVersion> entry).awaiting is not None
