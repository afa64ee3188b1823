"""The engine: loads and unloads model versions on the control plane, beside the data plane of dispatch.pyx.

A writer publishes a new route table, waits until every older read section has been left, drains the batchers that are
no longer reachable, waits for sections once more (a cancellation may still look at them), and frees them. So neither
side ever waits for the other with a lock held.
"""

import os
import threading

from cython cimport final, no_gc_clear
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memset

from kernels.batcher cimport batcher, close_batcher, open_batcher, wait_idle, wait_released
from kernels.batcher_counts cimport read_counts, read_statistics, reset_counts, set_trace_rate
from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, infer_and_wait, open_request
from kernels.ensemble cimport Ensemble
from kernels.ensemble_resolver cimport resolve_ensembles
from kernels.executor cimport close_executor, open_executor, reserve_alarm
from kernels.instances cimport start_lanes
from kernels.interface cimport Interface
from kernels.placement cimport PLACE_INLINE, PLACE_MEASURED, PLACE_WORKER
from kernels.queue_options cimport apply_options
from kernels.request cimport close_pool, open_pool, request
from kernels.response_cache cimport cache_usage, close_cache, forget_version, open_cache, read_usage
from kernels.routes cimport create_routes, free_routes, route_table
from kernels.sequence_rules cimport SequenceRules
from kernels.session cimport Session
from kernels.shared_memory cimport SharedMemory
from kernels.signature cimport signature
from kernels.statistics cimport counters, describe_counters, describe_statistics, free_statistics, statistics
from kernels.sync cimport counter_load, deadline_after, monotonic_ns, sections_wait
from kernels.trace cimport close_traces, open_traces, take_traces
from kernels.uneven_rules cimport UnevenRules
from kernels.version_sequences cimport check_sequences, count_sequences, keep_sequences, wait_for_sequences
from kernels.version_table cimport LoadedVersion, free_elders, publish_elders, publish_routes

from kernels.instances import check_instances
from kernels.queue_options import QueueOptions, check_options
from kernels.runtime import decode_error
from kernels.uneven_rules import check_uneven
from kernels.version_table import check_batchable

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** place, size_t alignment, size_t size) noexcept

cdef enum:
    CACHE_LINE_BYTES = 64
    MAX_DELAY_US = 60_000_000
    DEFAULT_INLINE_LIMIT_US = 100
    MAX_INLINE_LIMIT_US = 1_000_000
    MAX_WAIT_S = 1_000_000_000
    DEFAULT_QUEUE_REQUESTS = 4096
    DEFAULT_PENDING_BYTES = 1 << 30
    DEFAULT_SEQUENCE_DRAIN_US = 30_000_000
    CLOSING_LOOK_NS = 50_000_000   # how soon whoever waits for sequences sees that the engine closes


MAX_SEQUENCE_DRAIN_US = 86_400_000_000  # a day
PLACEMENTS = {"auto": PLACE_MEASURED, "never": PLACE_WORKER, "always": PLACE_INLINE}


class InferError(Exception):
    """A request failed; ``code`` is one of kernels.status, ``message`` is for the caller."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


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
    sequence_drain_us : int
        How long, in microseconds, `retire` lets the sequences of a version go on that was replaced.
    """

    def __cinit__(self, *, int workers=0, int64_t max_queue_requests=DEFAULT_QUEUE_REQUESTS,
                  int64_t max_pending_bytes=DEFAULT_PENDING_BYTES, str inline="auto",
                  int64_t inline_limit_us=DEFAULT_INLINE_LIMIT_US, int64_t response_cache_bytes=0,
                  int64_t sequence_drain_us=DEFAULT_SEQUENCE_DRAIN_US):
        if workers < 0 or response_cache_bytes < 0 or max_queue_requests < 1 or max_pending_bytes < 1:
            raise ValueError("workers and response_cache_bytes must be at least 0, max_queue_requests and "
                             "max_pending_bytes at least 1")
        if inline not in PLACEMENTS:
            raise ValueError(f"inline is {inline!r}; expected one of {', '.join(PLACEMENTS)}")
        if not 0 <= inline_limit_us <= MAX_INLINE_LIMIT_US:
            raise ValueError(f"inline_limit_us is {inline_limit_us}; expected 0 to {MAX_INLINE_LIMIT_US}")
        if not 0 <= sequence_drain_us <= MAX_SEQUENCE_DRAIN_US:
            raise ValueError(f"sequence_drain_us is {sequence_drain_us}; expected 0 to {MAX_SEQUENCE_DRAIN_US}")
        self._sequence_drain_us = sequence_drain_us
        self._placement = PLACEMENTS[inline]
        self._inline_limit_ns = inline_limit_us * 1000
        self._lock = threading.Lock()
        self._retiring = threading.Lock()
        self._process = os.getpid()
        self._versions = {}
        self._trace_rates = {"": 0}
        self._labels = {}
        self._faults = {}
        self._elders = []
        self._apart = set()
        self._closed = True
        self.shared_memory = SharedMemory()
        self.max_queue_requests = max_queue_requests
        self.max_pending_bytes = max_pending_bytes
        if posix_memalign(<void**> &self.core, CACHE_LINE_BYTES, sizeof(engine_core)) != 0:
            self.core = NULL
            raise MemoryError
        memset(self.core, 0, sizeof(engine_core))
        if (open_pool(&self.core.requests) != 0 or open_traces(&self.core.traces) != 0
                or open_cache(&self.core.cache, response_cache_bytes) != 0):
            raise MemoryError
        self.core.table = create_routes(0)
        if self.core.table == NULL:
            raise MemoryError
        if open_executor(&self.core.pool, workers or max(4, 2 * len(os.sched_getaffinity(0)))) != 0:
            raise MemoryError("no memory or no thread for the engine's timer")
        self._closed = False

    def __dealloc__(self):
        if self.core == NULL or self._process != os.getpid():
            return
        if not self._closed:
            self.close()
        free_routes(<route_table*> self.core.table)
        free_elders(self.core)
        close_pool(&self.core.requests)
        close_traces(&self.core.traces)
        close_cache(&self.core.cache)
        free(self.core)

    def load(self, str name not None, int64_t version, session not None, **options):
        """Serve a session as (name, version); one that serves under it already is swapped out and drained.

        Options are those of `prepare`, and so are the errors.
        """
        self.retire(self.exchange({(name, version): self.prepare(name, version, session, **options)}))

    def prepare(self, str name not None, int64_t version, session not None, *, int64_t max_batch_size=0,
                int64_t queue_delay_us=0, int32_t instance_count=1, max_queue_requests=None, int32_t buffer_sets=0,
                bint cache_replies=False, Interface interface=None, SequenceRules sequences=None,
                UnevenRules uneven=None, queueing=QueueOptions()):
        """Make a version that nobody can call yet, for `exchange`; what comes to nothing is for `retire`.

        Parameters
        ----------
        session : Session, or sequence of them
            Several sessions of one model are its instances; they need lanes.
        max_batch_size : int
            Rows in a batch; 0 when the model's first dimension is no batch.
        queue_delay_us : int
            How long, in microseconds, a batch that is not full waits for more.
        instance_count : int
            Batches that may run at the same time, all in one session, at most on half of the workers; without lanes only.
        buffer_sets : int
            0 runs batches on the engine's workers. Another number gives each session a lane, the one thread that runs
            it, and so many sets of buffers to be gathered, run and encoded side by side: for GPUs, at least 2. The
            largest batch is run once on each set before anything is served.
        cache_replies : bool
            Whether a request is answered by the reply that the same inputs got before, while that is kept.
        interface : Interface
            How callers see the session's tensors, where that is not as the model has them; of the first session.
        sequences : SequenceRules
            How the version keeps sequences; without, its requests have nothing to do with each other. Of the first
            session; never together with `cache_replies`, since what a request gets depends on those before it.
        uneven : UnevenRules
            How requests of different shapes go into one batch; without, they run in different ones. Of the first session;
            never of one that records its runs.
        queueing : QueueOptions
            Who waits where and for how long, and when a batch that is not full runs all the same.

        Raises
        ------
        DeviceError
            The largest batch does not fit into the device's memory.
        ValueError
            A number is out of range, or the model's first dimensions cannot be a batch.
        """
        if version < 1 or instance_count < 1 or (max_queue_requests is not None and max_queue_requests < 1):
            raise ValueError("version, instance_count and max_queue_requests must be at least 1")
        if not 0 <= queue_delay_us <= MAX_DELAY_US or max_batch_size < 0:
            raise ValueError(f"max_batch_size must be at least 0, queue_delay_us from 0 to {MAX_DELAY_US}")
        cdef tuple sessions = (session,) if isinstance(session, Session) else tuple(session)
        check_instances(sessions, instance_count, buffer_sets)
        check_options(queueing, max_batch_size)
        if interface is not None and interface.session is not sessions[0]:
            raise ValueError("the interface is of another session")
        check_sequences(sequences, sessions[0], cache_replies)
        check_uneven(uneven, sessions[0], interface, max_batch_size)
        if max_batch_size > 0:
            check_batchable(sessions[0])
        # More would leave none of the workers to other models while this one is overloaded.
        instance_count = min(instance_count, (self.core.pool.max_threads + 1) // 2)
        cdef LoadedVersion made = LoadedVersion.__new__(LoadedVersion)
        made.sessions = sessions
        cdef signature accepted
        made.interface = interface
        made.uneven = uneven
        fill_signature(&accepted, sessions[0], interface, sequences, uneven)
        accepted.max_batch_size = max_batch_size
        self.open_version(made, name, version, &accepted, 0 if buffer_sets > 0 else instance_count,
                          max(1, len(queueing.levels)), max_queue_requests)
        if cache_replies and self.core.cache.max_bytes > 0:
            made.queue.cache = &self.core.cache
        made.queue.rules.delay_ns = queue_delay_us * 1000
        apply_options(&made.queue, queueing)
        if sequences is not None:
            made.sequences, made.awaiting = sequences, threading.Lock()
            keep_sequences(&made.queue)
        if buffer_sets > 0:
            made.queue.task.is_inline = made.queue.place.is_inline = False
            self.open_instances(made, buffer_sets)
        return made

    def prepare_ensemble(self, str name not None, int64_t version, Ensemble ensemble not None, *,
                         int64_t max_batch_size=0, max_queue_requests=None):
        """As prepare, of an ensemble, which runs on what serves under its steps' names when it is asked.

        Parameters
        ----------
        max_batch_size : int
            Rows of a request at most; 0 when the first dimension is no batch.
        max_queue_requests : int
            Requests that may be in it at a time; one more gets EXHAUSTED.
        """
        if version < 1 or max_batch_size < 0 or (max_queue_requests is not None and max_queue_requests < 1):
            raise ValueError("version and max_queue_requests must be at least 1, max_batch_size at least 0")
        cdef LoadedVersion made = LoadedVersion.__new__(LoadedVersion)
        cdef signature accepted
        made.ensemble = ensemble
        memset(&accepted, 0, sizeof(signature))
        accepted.core = &ensemble.seen
        accepted.reads_inputs = True
        accepted.inputs = ensemble.seen.inputs
        accepted.outputs = ensemble.seen.outputs
        accepted.bound = ensemble.seen.inputs
        accepted.labels = ensemble.labels.lists if ensemble.labels is not None else NULL
        accepted.max_batch_size = max_batch_size
        return self.open_version(made, name, version, &accepted, 0, 1, max_queue_requests)

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
            self._apart.add(made)
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

    cdef int open_instances(self, LoadedVersion made, int32_t buffer_sets) except -1:
        """Give a version's sessions their lanes, or let go of it."""
        try:
            start_lanes(&made.queue, made.sessions, buffer_sets)
        except BaseException:
            with self._lock:
                self._apart.discard(made)
            raise
        return 0

    def exchange(self, dict changes not None, dict labels=None):
        """Put all changes into place at one moment; requests that were admitted before are finished.

        Parameters
        ----------
        changes : dict
            (name, version) to what `prepare` made; to a text, the reason with which requests are refused as
            UNAVAILABLE; or to None, which has them refused as NOT_FOUND.
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
            versions, replaced = dict(self._versions), []
            for key, entry in changes.items():
                previous = versions.pop(key, None)
                if isinstance(previous, LoadedVersion):
                    replaced.append(previous)
                if entry is not None:
                    versions[key] = entry
            chosen = self.choose_labels(versions, labels or {})
            self.reserve_alarms(len(versions))
            elders = [entry for entry in replaced if (<LoadedVersion> entry).awaiting is not None]
            if elders:
                # Before nothing leads to them any more: their sequences are found at any moment.
                self._elders = self._elders + elders
                publish_elders(self.core, self._elders)
            for (name, _), entry in changes.items():
                if isinstance(entry, LoadedVersion):
                    reset_counts(&(<LoadedVersion> entry).queue)
                    set_trace_rate(&(<LoadedVersion> entry).queue, self.find_trace_rate(name))
            plans = resolve_ensembles(versions)
            publish_routes(self.core, versions, chosen, plans)
            self._versions, self._labels = versions, chosen
            self._faults = {key: plan if isinstance(plan, str) else None for key, plan in plans.items()}
            self._apart.difference_update(changes.values())
            self._apart.update(replaced)
        return replaced

    def retire(self, entries):
        """Finish what unreachable versions have admitted, then free them and their sessions; blocks.

        Sequences of those that `exchange` replaced go on until they end, or the time for that is up.
        """
        cdef int64_t until_ns = deadline_after(self._sequence_drain_us)
        for entry in entries:
            self.await_sequences(entry, until_ns)
            self.retire_version(entry)

    def unload(self, str name not None, int64_t version):
        """Stop serving a version: requests that come later get NOT_FOUND, those admitted are finished first."""
        self.retire(self.exchange({(name, version): None}))

    def set_unavailable(self, str name not None, int64_t version, str reason not None):
        """Have requests for a version refused with UNAVAILABLE and the reason."""
        self.retire(self.exchange({(name, version): reason}))

    def versions(self):
        """Return {(name, version): None when it serves, else the reason why not}."""
        with self._lock:
            return {
                key: self._faults.get(key) if isinstance(entry, LoadedVersion) else entry
                for key, entry in self._versions.items()
            }

    def statistics(self, str name not None, int64_t version):
        """Return the counters of a serving version, as {name: count or nanoseconds}, with how many requests are
        "queued", how many batches are "running", whether that is "inline", and how many "sequences" are under way;
        KeyError when it does not serve."""
        cdef counters total
        cdef int64_t queued = 0, running = 0, sequences = 0
        cdef bint is_inline = False
        with self._lock:
            queued = read_counts(self.find_queue(name, version), &total, &running, &is_inline)
            sequences = count_sequences(self.find_queue(name, version))
        state = {"queued": queued, "running": running, "inline": bool(is_inline), "sequences": max(sequences, 0)}
        return {**describe_counters(&total), **state}

    def read_statistics(self, str name not None, int64_t version):
        """Return all that is counted of a serving version, as a VersionStatistics; KeyError when it does not serve.

        The counts are those since the version was loaded: one that is loaded again begins anew.
        """
        cdef statistics copied
        cdef int64_t queued = 0, sequences = 0
        with self._lock:
            queued = read_statistics(self.find_queue(name, version), &copied)
            sequences = count_sequences(self.find_queue(name, version))
        if queued < 0:
            raise MemoryError
        try:
            return describe_statistics(name, version, &copied, queued, sequences)
        finally:
            free_statistics(&copied)

    def cache_usage(self):
        """Return {"max_bytes", "bytes", "entries", "evictions"} of the response cache."""
        cdef cache_usage usage
        with nogil:
            read_usage(&self.core.cache, &usage)
        return usage

    def set_tracing(self, dict rates not None):
        """Sample requests for take_traces: one in so many by model name, "" for all others; 0 for none."""
        with self._lock:
            self._trace_rates = dict(rates)
            for (name, _), entry in self._versions.items():
                if isinstance(entry, LoadedVersion):
                    set_trace_rate(&(<LoadedVersion> entry).queue, self.find_trace_rate(name))

    @property
    def pending_bytes(self):
        """Bytes of messages, and of tensors between the steps of ensembles, that wait or run now."""
        return counter_load(&self.core.pending_bytes)

    cdef int64_t find_trace_rate(self, str name) except -1:
        return self._trace_rates.get(name, self._trace_rates[""])

    def take_traces(self):
        """Return the Traces since the last call, the oldest first, at most 1,024, and how many were lost beyond."""
        return take_traces(&self.core.traces)

    cdef batcher* find_queue(self, str name, int64_t version) except NULL:
        """The queue of a serving version; KeyError without. Good as long as _lock is held."""
        entry = self._versions[name, version]
        if not isinstance(entry, LoadedVersion):
            raise KeyError((name, version))
        return &(<LoadedVersion> entry).queue

    def drain(self, double timeout_s):
        """Wait until every admitted request has been settled; True when that happened in time.

        Whoever calls has stopped submitting.
        """
        cdef int64_t until_ns = deadline_after(<int64_t> (min(max(timeout_s, 0.0), MAX_WAIT_S) * 1e6))
        cdef bint idle = True
        cdef batcher* queue
        if not self._retiring.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX)):
            return False
        try:
            # Ensembles first: until they are idle, their steps get requests.
            for entry in sorted(self._loaded(), key=lambda entry: (<LoadedVersion> entry).ensemble is None):
                queue = &(<LoadedVersion> entry).queue
                with nogil:
                    idle = wait_idle(queue, until_ns) and idle
        finally:
            self._retiring.release()
        return idle

    def close(self):
        """Drain and unload everything and stop the threads. Every request must have been given back afterwards."""
        with self._lock:
            if self._closed:
                return
            publish_routes(self.core, {}, {}, {})
            self._closed = True
            reachable, self._versions, self._labels, self._faults = self._versions, {}, {}, {}
            entries = [*reachable.values(), *self._apart]
        self.retire(entries)
        with nogil:
            close_executor(&self.core.pool)

    def _loaded(self):
        """Return every version that may have requests; they stay while _retiring is held."""
        with self._lock:
            return [entry for entry in (*self._versions.values(), *self._apart) if isinstance(entry, LoadedVersion)]

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
        cdef batcher* queue = NULL
        cdef request* asked
        if target is not None:
            if target.ensemble is not None:
                raise ValueError("an ensemble runs only where its steps serve")
            queue = &target.queue
        asked = open_request(self.core)
        if asked == NULL:
            raise MemoryError
        asked.message = message
        asked.message_size = len(message)
        asked.version_hint = bytes_view(<const uint8_t*> <const char*> version_hint, len(version_hint))
        asked.deadline_ns = deadline_after(timeout_us) if timeout_us > 0 else 0
        try:
            with nogil:
                infer_and_wait(self.core, queue, asked)
            if asked.error.code != 0:
                raise InferError(asked.error.code, decode_error(asked.error.text))
            return asked.reply[:asked.reply_size]
        finally:
            close_request(self.core, asked)

    cdef int check_open(self) except -1:
        if self._closed:
            raise ValueError("the engine is closed")
        return 0

    cdef int reserve_alarms(self, size_t reachable) except -1:
        """Make room for the alarm of every version; under the lock."""
        if reserve_alarm(&self.core.pool, reachable + len(self._apart) + 2) != 0:
            raise MemoryError
        return 0

    cdef dict choose_labels(self, dict versions, dict changed):
        """Return the labels of the models that have versions, with what is changed of them."""
        names = {name for name, _ in versions}
        chosen = {name: labels for name, labels in {**self._labels, **changed}.items() if name in names and labels}
        for name, labels in chosen.items():
            for label, version in labels.items():
                if (name, version) not in versions:
                    raise ValueError(f"label {label!r} of model {name!r} stands for version {version}, which is not there")
        return chosen

    cdef int await_sequences(self, object entry, int64_t until_ns) except -1:
        """Let the sequences of a replaced version go on for their time, then have nothing lead to them any more."""
        cdef bint ended = False
        if not isinstance(entry, LoadedVersion) or (<LoadedVersion> entry).awaiting is None:
            return 0
        cdef LoadedVersion elder = entry
        cdef batcher* queue = &elder.queue
        with elder.awaiting:
            if entry not in self._elders:
                return 0
            while not ended and not self._closed and monotonic_ns() < until_ns:
                with nogil:
                    ended = wait_for_sequences(queue, min(until_ns, monotonic_ns() + CLOSING_LOOK_NS))
            with self._lock:
                self._elders = [other for other in self._elders if other is not entry]
                publish_elders(self.core, self._elders)
        return 0

    cdef int retire_version(self, object entry) except -1:
        """Finish what an unreachable version has admitted, then free its queue and session, if that was not done."""
        if not isinstance(entry, LoadedVersion):
            return 0
        cdef LoadedVersion retired = entry
        cdef batcher* queue = &retired.queue
        with self._retiring:
            if queue.pool == NULL:
                return 0
            with nogil:
                wait_released(queue)
                wait_idle(queue, INT64_MAX)
            with self._lock, nogil:
                # A cancellation may have found a request of this queue still running just before it became idle.
                sections_wait(&self.core.sections)
            with nogil:
                close_batcher(queue)
                forget_version(&self.core.cache, queue.serial)
            queue.pool = NULL
            retired.sessions = ()
            retired.ensemble = None
            retired.interface = None
            retired.sequences = None
            retired.uneven = None
            self._apart.discard(retired)
        return 0


cdef int fill_signature(signature* accepted, Session session, Interface interface, SequenceRules sequences,
                        UnevenRules uneven) except -1:
    """Say what callers see: the session's own tensors, but for those that the interface has otherwise."""
    accepted.core = &session.core
    accepted.inputs = session.core.inputs
    accepted.outputs = session.core.outputs
    accepted.made = NULL
    accepted.bound = session.core.inputs if uneven is None else uneven.core.bound
    accepted.uneven = &uneven.core if uneven is not None else NULL
    accepted.reads_inputs = uneven is not None and uneven.core.n_lengths > 0
    accepted.labels = NULL
    accepted.sequences = &sequences.core if sequences is not None else NULL
    if interface is None:
        return 0
    if interface.core.inputs != NULL:
        accepted.inputs = interface.core.inputs
    if interface.core.outputs != NULL:
        accepted.outputs = interface.core.outputs
        accepted.made = interface.core.made
    accepted.labels = interface.core.labels
    return 0
