"""The engine: loads and unloads model versions on the control plane, beside the data plane of dispatch.pyx.

A writer publishes a new route table, and waits until every older read section has been left; departures.pyx sees off what
nobody can reach any more. So neither side ever waits for the other with a lock held.
"""

import os
import threading

from cython cimport final, no_gc_clear
from libc.stdint cimport int32_t, int64_t, uint64_t

from kernels.batcher cimport open_batcher
from kernels.blocking_call cimport call_and_wait
from kernels.departures cimport Departures
from kernels.engine_core cimport create_core, free_core
from kernels.ensemble cimport Ensemble
from kernels.ensemble_resolver cimport number_plans, resolve_ensembles
from kernels.executor cimport close_executor, reserve_alarm
from kernels.idempotency cimport book_usage, read_book
from kernels.parking cimport await_wanted, close_lot
from kernels.placement cimport PLACE_INLINE, PLACE_MEASURED, PLACE_WORKER
from kernels.response_cache cimport cache_usage, read_usage
from kernels.shared_memory cimport SharedMemory
from kernels.signature cimport signature
from kernels.sync cimport counter_load
from kernels.trace cimport take_traces
from kernels.version_counts cimport (
    begin_counts, describe_totals, describe_use, describe_version, follow_counts, set_rates,
)
from kernels.version_options cimport VersionOptions
from kernels.version_table cimport LoadedVersion, change_entries, choose_labels, publish_routes

from kernels.blocking_call import InferError

cdef enum:
    DEFAULT_INLINE_LIMIT_US = 100
    MAX_INLINE_LIMIT_US = 1_000_000
    MAX_WAIT_S = 1_000_000_000
    DEFAULT_QUEUE_REQUESTS = 4096
    DEFAULT_PENDING_BYTES = 1 << 30
    DEFAULT_SEQUENCE_DRAIN_US = 30_000_000
    DEFAULT_LIFE_US = 300_000_000


MAX_SEQUENCE_DRAIN_US = 86_400_000_000  # a day
PLACEMENTS = {"auto": PLACE_MEASURED, "never": PLACE_WORKER, "always": PLACE_INLINE}


@final
@no_gc_clear
cdef class Engine:
    """Loaded model versions and the threads that run them.

    Parameters
    ----------
    workers : int
        Threads that run batches; 0 is twice the processors this process may use, at least 4, so that a slow model
        leaves room for a quick one. One is there from the start, the others come on demand.
    max_queue_requests : int
        Requests that may wait for one model version; one more gets EXHAUSTED.
    max_pending_bytes : int
        Message bytes that may wait or run in all; a message beyond that gets EXHAUSTED.
    inline : str
        Whether models run on the I/O threads of a transport that has such: "auto" for those whose largest batch was
        measured and is quick, "never", or "always".
    inline_limit_us : int
        What a quick model's largest batch takes at most, in microseconds, at the 99th percentile.
    response_cache_bytes : int
        Replies that are kept in all, for the versions that are prepared with `cache_replies`; 0 keeps none.
    idempotency_bytes : int
        Answers to requests with a key that are kept in all, with what keeping them takes; 0 keeps none.
    idempotency_life_us : int
        How long each is kept, in microseconds.
    sequence_drain_us : int
        How long, in microseconds, `retire` lets the sequences of a version go on that was replaced.
    """

    def __cinit__(self, *, int workers=0, int64_t max_queue_requests=DEFAULT_QUEUE_REQUESTS,
                  int64_t max_pending_bytes=DEFAULT_PENDING_BYTES, str inline="auto",
                  int64_t inline_limit_us=DEFAULT_INLINE_LIMIT_US, int64_t response_cache_bytes=0,
                  int64_t idempotency_bytes=0, int64_t idempotency_life_us=DEFAULT_LIFE_US,
                  int64_t sequence_drain_us=DEFAULT_SEQUENCE_DRAIN_US):
        if workers < 0 or response_cache_bytes < 0 or max_queue_requests < 1 or max_pending_bytes < 1:
            raise ValueError("workers and response_cache_bytes must be at least 0, max_queue_requests and "
                             "max_pending_bytes at least 1")
        if idempotency_bytes < 0 or not 1 <= idempotency_life_us <= MAX_SEQUENCE_DRAIN_US:
            raise ValueError("idempotency_bytes must be at least 0, and idempotency_life_us from 1 to a day")
        if inline not in PLACEMENTS:
            raise ValueError(f"inline is {inline!r}; expected one of {', '.join(PLACEMENTS)}")
        if not 0 <= inline_limit_us <= MAX_INLINE_LIMIT_US:
            raise ValueError(f"inline_limit_us is {inline_limit_us}; expected 0 to {MAX_INLINE_LIMIT_US}")
        if not 0 <= sequence_drain_us <= MAX_SEQUENCE_DRAIN_US:
            raise ValueError(f"sequence_drain_us is {sequence_drain_us}; expected 0 to {MAX_SEQUENCE_DRAIN_US}")
        self._placement = PLACEMENTS[inline]
        self._inline_limit_ns = inline_limit_us * 1000
        self._lock = threading.Lock()
        self._departures = Departures(self._lock)
        self._departures.drain_us = sequence_drain_us
        self._process = os.getpid()
        self._versions = {}
        self._trace_rates = {"": 0}
        self._labels = {}
        self._past = {}
        self._faults = {}
        self._plan_serials = {}
        self._closed = True
        self.shared_memory = SharedMemory()
        cdef bytes seed = os.urandom(sizeof(uint64_t))
        self.max_queue_requests = max_queue_requests
        self.max_pending_bytes = max_pending_bytes
        self.core = create_core(workers or max(4, 2 * len(os.sched_getaffinity(0))), max_queue_requests,
                                max_pending_bytes, response_cache_bytes, idempotency_bytes, idempotency_life_us * 1000,
                                (<const uint64_t*> <const char*> seed)[0])
        self._departures.core = self.core
        self._closed = False

    def __dealloc__(self):
        if self.core == NULL or self._process != os.getpid():
            return
        if not self._closed:
            self.close()
        free_core(self.core)

    def load(self, str name not None, int64_t version, session not None, **options):
        """Serve a session as (name, version); one that serves under it already is swapped out and drained.

        Options are those of `prepare`, and so are the errors.
        """
        self.retire(self.exchange({(name, version): self.prepare(name, version, session, **options)}))

    def prepare(self, str name not None, int64_t version, session not None, **options):
        """Make a version that nobody can call yet, for `exchange`; what comes to nothing is for `retire`.

        Parameters
        ----------
        session, options
            Those of kernels.version_options.VersionOptions, and so are the errors.

        Raises
        ------
        DeviceError
            The largest batch does not fit into the device's memory.
        """
        if version < 1:
            raise ValueError("version must be at least 1")
        cdef VersionOptions wanted = VersionOptions(session, **options)
        cdef LoadedVersion made = LoadedVersion.__new__(LoadedVersion)
        cdef signature accepted
        # More would leave none of the workers to other models while this one is overloaded.
        cdef int32_t instances = min(wanted.instance_count, (self.core.pool.max_threads + 1) // 2)
        made.sessions, made.interface, made.uneven = wanted.sessions, wanted.interface, wanted.uneven
        wanted.describe(&accepted)
        self.open_version(made, name, version, &accepted, 0 if wanted.buffer_sets > 0 else instances,
                          max(1, len(wanted.queueing.levels)), wanted.max_queue_requests)
        try:
            wanted.apply(made, &self.core.cache)
        except BaseException:
            with self._lock:
                self._departures.apart.discard(made)
            raise
        return made

    def prepare_ensemble(self, str name not None, int64_t version, Ensemble ensemble not None, *,
                         int64_t max_batch_size=0, max_queue_requests=None, bint cache_replies=False):
        """As prepare, of an ensemble, which runs on what serves under its steps' names when it is asked.

        Parameters
        ----------
        max_batch_size : int
            Rows of a request at most; 0 when the first dimension is no batch.
        max_queue_requests : int
            Requests that may be in it at a time; one more gets EXHAUSTED.
        cache_replies : bool
            Whether a request is answered by the reply that the same inputs got before, from the same versions of all steps.
        """
        if version < 1 or max_batch_size < 0 or (max_queue_requests is not None and max_queue_requests < 1):
            raise ValueError("version and max_queue_requests must be at least 1, max_batch_size at least 0")
        cdef LoadedVersion made = LoadedVersion.__new__(LoadedVersion)
        cdef signature accepted
        made.ensemble = ensemble
        ensemble.describe(&accepted)
        ensemble.core.gate = &self.core.gate
        ensemble.core.keeps_replies = cache_replies
        accepted.max_batch_size = max_batch_size
        self.open_version(made, name, version, &accepted, 0, 1, max_queue_requests)
        if cache_replies and self.core.cache.max_bytes > 0:
            made.queue.cache = &self.core.cache
        return made

    def find_fault(self, LoadedVersion ensemble not None):
        """Return why what `prepare_ensemble` made could not run on the versions that there are now, or None."""
        cdef tuple key = (ensemble.queue.served.model.decode(), ensemble.queue.version)
        with self._lock:
            fault = resolve_ensembles({**self._versions, key: ensemble})[key]
        return fault if isinstance(fault, str) else None

    def ensembles(self):
        """Return {(name, version): None when it can run, else the reason why not} for all ensembles."""
        with self._lock:
            return dict(self._faults)

    cdef LoadedVersion open_version(self, LoadedVersion made, str name, int64_t version, signature* accepted,
                                    int32_t n_instances, int32_t n_levels, object max_queue_requests):
        """Open the queue of a version that nobody can call yet."""
        cdef bytes encoded = name.encode()
        accepted.regions = self.shared_memory.table
        accepted.max_shared_bytes = self.max_pending_bytes
        with self._lock:
            self.check_open()
            self.reserve_alarms(len(self._versions) + 1)
            if open_batcher(&made.queue, &self.core.pool, accepted, encoded, len(encoded), version, n_instances,
                            n_levels) != 0:
                raise MemoryError
            self._departures.apart.add(made)
            self._serial += 1
            made.queue.serial = self._serial
        made.queue.max_queued = max_queue_requests or self.max_queue_requests
        made.queue.pending_bytes = &self.core.pending_bytes
        made.queue.max_pending_bytes = self.max_pending_bytes
        made.queue.traced.book = &self.core.traces
        made.queue.place.mode = self._placement
        made.queue.place.limit_ns = self._inline_limit_ns
        made.queue.task.is_inline = made.queue.place.is_inline = self._placement == PLACE_INLINE
        return made

    def exchange(self, dict changes not None, dict labels=None):
        """Put all changes into place at one moment; requests that were admitted before are finished.

        Parameters
        ----------
        changes : dict
            (name, version) to what `prepare` made; to the DormantModel where requests wait, of which `take_wanted` tells;
            to a text, the reason with which they are refused as UNAVAILABLE; or to None, which has them refused as
            NOT_FOUND.
        labels : dict
            Name to {label: version}, all labels of that model from now on. Every version must be there, serving or not.

        Returns
        -------
        list
            What was replaced, for `retire`.

        Raises
        ------
        ValueError
            The engine is closed, or a label stands for a version that is not there.
        """
        with self._lock:
            self.check_open()
            versions = dict(self._versions)
            replaced = change_entries(versions, changes)
            chosen = choose_labels(self._labels, versions, labels or {})
            self.reserve_alarms(len(versions))
            self._departures.keep_elders(replaced)
            begin_counts(changes)
            set_rates(changes, self._trace_rates)
            plans = resolve_ensembles(versions)
            self._plan_serials = number_plans(plans, self._plan_serials, &self._serial)
            publish_routes(self.core, versions, chosen, plans)
            follow_counts(self._past, self._versions, changes)
            self._versions, self._labels = versions, chosen
            self._faults = {key: plan if isinstance(plan, str) else None for key, plan in plans.items()}
            self._departures.apart.difference_update(changes.values())
            self._departures.apart.update(replaced)
        return replaced

    def retire(self, entries):
        """Finish what unreachable versions have admitted, then free them and their sessions; blocks.

        What waits for a DormantModel goes first, where the routes lead now. Sequences of versions that `exchange` replaced
        go on until they end, or the time for that is up.
        """
        self._departures.retire(list(entries))

    def finish_sequences(self, entries):
        """The part of `retire` that waits for sequences, for all of the entries within the same time; blocks."""
        self._departures.finish_sequences(entries)

    def unload(self, str name not None, int64_t version):
        """Stop serving a version: requests that come later get NOT_FOUND, those admitted are finished first."""
        self.retire(self.exchange({(name, version): None}))

    def set_unavailable(self, str name not None, int64_t version, str reason not None):
        """Have requests for a version refused with UNAVAILABLE and the reason."""
        self.retire(self.exchange({(name, version): reason}))

    def versions(self):
        """Return {(name, version): None when it serves, its DormantModel, or the reason why it is neither}."""
        with self._lock:
            return {
                key: self._faults.get(key) if isinstance(entry, LoadedVersion) else entry
                for key, entry in self._versions.items()
            }

    def take_wanted(self, double timeout_s):
        """Wait for a request for a dormant model that nobody has been told of yet.

        Returns
        -------
        str or None
            The model's name; its requests wait until an exchange has put something else into its place, and it was
            retired. None when the time has passed, or `end_parking` was called.
        """
        return await_wanted(&self.core.lot, min(max(timeout_s, 0.0), MAX_WAIT_S))

    def end_parking(self):
        """Refuse what waits for dormant models, and what comes for them later, as UNAVAILABLE, for good."""
        with nogil:
            close_lot(&self.core.lot)

    def read_use(self):
        """Return {name: (last_used_ns, is_used)} of the models that serve.

        The monotonic time at which the latest request for any version came, or it was put in place, and whether any
        has requests now, or sequences, or is a step of an ensemble that runs.
        """
        with self._lock:
            return describe_use(self._versions)

    def statistics(self, str name not None, int64_t version):
        """Return the counters of a version, as {name: count or nanoseconds}, with how many requests are "queued", how
        many batches are "running", whether that is "inline", and how many "sequences" are under way; KeyError when it
        does not serve, and of a dormant one that has not yet."""
        with self._lock:
            return describe_totals(self._versions, self._past, (name, version))

    def read_statistics(self, str name not None, int64_t version):
        """Return all that is counted of a version, as a VersionStatistics; KeyError as of `statistics`.

        The counts are those since the version was loaded: one that is loaded again begins anew, unless it was dormant
        meanwhile.
        """
        with self._lock:
            return describe_version(self._versions, self._past, (name, version))

    def cache_usage(self):
        """Return {"max_bytes", "bytes", "entries", "evictions"} of the response cache."""
        cdef cache_usage usage
        with nogil:
            read_usage(&self.core.cache, &usage)
        return usage

    def idempotency_usage(self):
        """Return {"max_bytes", "bytes", "entries", "waiting", "runs", "replays", "conflicts", "evictions"} of answers under keys."""
        cdef book_usage usage
        with nogil:
            read_book(&self.core.keyed, &usage)
        return usage

    def set_tracing(self, dict rates not None):
        """Sample requests for take_traces: one in so many by model name, "" for all others; 0 for none."""
        with self._lock:
            self._trace_rates = dict(rates)
            set_rates(self._versions, self._trace_rates)

    @property
    def pending_bytes(self):
        """Bytes of messages, and of tensors between the steps of ensembles, that wait or run now."""
        return counter_load(&self.core.pending_bytes)

    def take_traces(self):
        """Return the Traces since the last call, the oldest first, at most 1,024, and how many were lost beyond."""
        return take_traces(&self.core.traces)

    def drain(self, double timeout_s):
        """Wait until every admitted request has been settled; True when that happened in time.

        Whoever calls has stopped submitting.
        """
        return self._departures.drain(self._loaded, min(max(timeout_s, 0.0), MAX_WAIT_S))

    def close(self):
        """Drain and unload everything and stop the threads. Every request must have been given back afterwards."""
        with self._lock:
            if self._closed:
                return
            publish_routes(self.core, {}, {}, {})
            self._closed = self._departures.closing = True
            reachable, self._versions, self._labels, self._faults = self._versions, {}, {}, {}
            entries = [*reachable.values(), *self._departures.apart]
        self.end_parking()
        self.retire(entries)
        with nogil:
            close_executor(&self.core.pool)

    def _loaded(self):
        """Return every version that may have requests; they stay while _retiring is held."""
        with self._lock:
            entries = (*self._versions.values(), *self._departures.apart)
            return [entry for entry in entries if isinstance(entry, LoadedVersion)]

    def infer(self, bytes message not None, *, bytes version_hint not None=b"", int64_t timeout_us=0,
              LoadedVersion target=None):
        """Run one ModelInferRequest and wait for it; for tests, warm-up and embedding.

        Parameters
        ----------
        target : LoadedVersion
            What `prepare` made, to run the request whatever model it names.

        Returns
        -------
        bytes
            The ModelInferResponse on the wire.

        Raises
        ------
        InferError
            The request was refused, failed or expired.
        """
        if target is None:
            return call_and_wait(self.core, NULL, message, version_hint, timeout_us)
        if target.ensemble is not None:
            raise ValueError("an ensemble runs only where its steps serve")
        return call_and_wait(self.core, &target.queue, message, version_hint, timeout_us)

    cdef int check_open(self) except -1:
        if self._closed:
            raise ValueError("the engine is closed")
        return 0

    cdef int reserve_alarms(self, size_t reachable) except -1:
        """Make room for the alarm of every version, and that of the parked requests; under the lock."""
        if reserve_alarm(&self.core.pool, reachable + len(self._departures.apart) + 3) != 0:
            raise MemoryError
        return 0
