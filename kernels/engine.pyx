"""The engine: loads and unloads model versions on the control plane, beside the data plane of dispatch.pyx.

A writer publishes a new route table, waits until every older read section has been left, drains the batcher that is no
longer reachable, waits for sections once more (a cancellation may still look at it), and frees it. So neither side ever
waits for the other with a lock held.
"""

import os
import threading

from cython cimport final, no_gc_clear
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from kernels.batcher cimport batcher, close_batcher, open_batcher, open_lanes, read_counts, statistics, wait_idle
from kernels.codec cimport bytes_view
from kernels.dispatch cimport close_request, engine_core, infer_and_wait, open_request
from kernels.executor cimport close_executor, open_executor, reserve_alarm
from kernels.failure cimport failure
from kernels.pipeline cimport warm_up
from kernels.placement cimport PLACE_INLINE, PLACE_MEASURED, PLACE_WORKER, can_run_zeros
from kernels.request cimport close_pool, open_pool, request
from kernels.routes cimport add_route, create_routes, free_routes, route_table
from kernels.session cimport Session, session_core
from kernels.signature cimport signature
from kernels.status cimport EXHAUSTED
from kernels.sync cimport deadline_after, pointer_store, sections_wait

from kernels.runtime import decode_error
from kernels.session import DeviceError

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** place, size_t alignment, size_t size) noexcept

cdef enum:
    CACHE_LINE_BYTES = 64
    MAX_DELAY_US = 60_000_000
    DEFAULT_INLINE_LIMIT_US = 100
    MAX_INLINE_LIMIT_US = 1_000_000
    MAX_WAIT_S = 1_000_000_000
    MAX_BUFFER_SETS = 16
    DEFAULT_QUEUE_REQUESTS = 4096
    DEFAULT_PENDING_BYTES = 1 << 30


PLACEMENTS = {"auto": PLACE_MEASURED, "never": PLACE_WORKER, "always": PLACE_INLINE}


class InferError(Exception):
    """A request failed; ``code`` is one of kernels.status, ``message`` is for the caller."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


@final
@no_gc_clear
cdef class LoadedVersion:
    """Owns one batcher and keeps its sessions alive, to the end of __dealloc__."""

    cdef batcher queue
    cdef tuple sessions

    def __dealloc__(self):
        if self.queue.pool != NULL:
            close_batcher(&self.queue)


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
    """

    def __cinit__(self, *, int workers=0, int64_t max_queue_requests=DEFAULT_QUEUE_REQUESTS,
                  int64_t max_pending_bytes=DEFAULT_PENDING_BYTES, str inline="auto",
                  int64_t inline_limit_us=DEFAULT_INLINE_LIMIT_US):
        if workers < 0 or max_queue_requests < 1 or max_pending_bytes < 1:
            raise ValueError("workers must be at least 0, max_queue_requests and max_pending_bytes at least 1")
        if inline not in PLACEMENTS:
            raise ValueError(f"inline is {inline!r}; expected one of {', '.join(PLACEMENTS)}")
        if not 0 <= inline_limit_us <= MAX_INLINE_LIMIT_US:
            raise ValueError(f"inline_limit_us is {inline_limit_us}; expected 0 to {MAX_INLINE_LIMIT_US}")
        self._placement = PLACEMENTS[inline]
        self._inline_limit_ns = inline_limit_us * 1000
        self._lock = threading.Lock()
        self._retiring = threading.Lock()
        self._process = os.getpid()
        self._versions = {}
        self._closed = True
        self.max_queue_requests = max_queue_requests
        self.max_pending_bytes = max_pending_bytes
        if posix_memalign(<void**> &self.core, CACHE_LINE_BYTES, sizeof(engine_core)) != 0:
            self.core = NULL
            raise MemoryError
        memset(self.core, 0, sizeof(engine_core))
        if open_pool(&self.core.requests) != 0:
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
        close_pool(&self.core.requests)
        free(self.core)

    def load(self, str name not None, int64_t version, session not None, *, int64_t max_batch_size=0,
             int64_t queue_delay_us=0, int32_t instance_count=1, max_queue_requests=None, int32_t buffer_sets=0):
        """Serve a session as (name, version); one that serves under it already is swapped out and drained.

        Parameters
        ----------
        session : Session, or sequence of them
            Several sessions of one model are its instances; they need lanes.
        max_batch_size : int
            Rows in a batch; 0 when the model's first dimension is no batch.
        queue_delay_us : int
            How long, in microseconds, a batch that is not full waits for more.
        instance_count : int
            Batches that may run at the same time, all in one session; without lanes only.
        buffer_sets : int
            0 runs batches on the engine's workers. Another number gives each session a lane, the one thread that runs
            it, and so many sets of buffers to be gathered, run and encoded side by side: for GPUs, at least 2. The
            largest batch is run once on each set before anything is served.

        Raises
        ------
        DeviceError
            The largest batch does not fit into the device's memory.
        ValueError
            A number is out of range, or the model's first dimensions cannot be a batch.
        """
        if self._closed:
            raise ValueError("the engine is closed")
        if version < 1 or instance_count < 1 or (max_queue_requests is not None and max_queue_requests < 1):
            raise ValueError("version, instance_count and max_queue_requests must be at least 1")
        if not 0 <= queue_delay_us <= MAX_DELAY_US or max_batch_size < 0:
            raise ValueError(f"max_batch_size must be at least 0, queue_delay_us from 0 to {MAX_DELAY_US}")
        cdef tuple sessions = (session,) if isinstance(session, Session) else tuple(session)
        check_lanes(sessions, instance_count, buffer_sets)
        if max_batch_size > 0:
            check_batchable(sessions[0])
        cdef LoadedVersion made = LoadedVersion.__new__(LoadedVersion)
        made.sessions = sessions
        cdef bytes encoded = name.encode()
        cdef signature accepted
        accepted.core = &(<Session> sessions[0]).core
        accepted.max_batch_size = max_batch_size
        if open_batcher(&made.queue, &self.core.pool, &accepted, encoded, len(encoded), version,
                        0 if buffer_sets > 0 else instance_count) != 0:
            raise MemoryError
        if buffer_sets > 0:
            start_lanes(&made.queue, sessions, buffer_sets)
        made.queue.delay_ns = queue_delay_us * 1000
        made.queue.max_queued = max_queue_requests or self.max_queue_requests
        made.queue.pending_bytes = &self.core.pending_bytes
        made.queue.max_pending_bytes = self.max_pending_bytes
        made.queue.place.mode = self._placement
        made.queue.place.limit_ns = self._inline_limit_ns
        made.queue.task.is_inline = made.queue.place.is_inline = self._placement == PLACE_INLINE and buffer_sets == 0
        self.replace_version(name, version, made)

    def unload(self, str name not None, int64_t version):
        """Stop serving a version: requests that come later get NOT_FOUND, those admitted are finished first."""
        self.replace_version(name, version, None)

    def set_unavailable(self, str name not None, int64_t version, str reason not None):
        """Have requests for a version refused with UNAVAILABLE and the reason."""
        self.replace_version(name, version, reason)

    def versions(self):
        """Return {(name, version): None when it serves, else the reason why not}."""
        with self._lock:
            return {key: None if isinstance(entry, LoadedVersion) else entry for key, entry in self._versions.items()}

    def statistics(self, str name not None, int64_t version):
        """Return the counters of a serving version, as {name: count or nanoseconds}, and whether it runs
        "inline"; KeyError when it does not serve."""
        cdef statistics counts
        cdef int64_t queued = 0
        cdef bint is_inline = False
        with self._lock:
            entry = self._versions[name, version]
            if not isinstance(entry, LoadedVersion):
                raise KeyError((name, version))
            queued = read_counts(&(<LoadedVersion> entry).queue, &counts, &is_inline)
        return {**counts, "queued": queued, "inline": bool(is_inline)}

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
            for entry in self._loaded():
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
            publish_routes(self.core, {})
            self._closed = True
            versions, self._versions = self._versions, {}
        for entry in versions.values():
            self.retire_version(entry)
        with nogil:
            close_executor(&self.core.pool)

    def _loaded(self):
        """Return the versions that serve; they stay so while _retiring is held."""
        with self._lock:
            return [entry for entry in self._versions.values() if isinstance(entry, LoadedVersion)]

    def infer(self, bytes message not None, *, bytes version_hint not None=b"", int64_t timeout_us=0):
        """Run one ModelInferRequest and wait for it; for tests, warm-up and embedding.

        Returns
        -------
        bytes
            The ModelInferResponse on the wire.

        Raises
        ------
        InferError
            The request was refused, failed or expired.
        """
        cdef request* asked = open_request(self.core)
        if asked == NULL:
            raise MemoryError
        asked.message = message
        asked.message_size = len(message)
        asked.version_hint = bytes_view(<const uint8_t*> <const char*> version_hint, len(version_hint))
        asked.deadline_ns = deadline_after(timeout_us) if timeout_us > 0 else 0
        try:
            with nogil:
                infer_and_wait(self.core, asked)
            if asked.error.code != 0:
                raise InferError(asked.error.code, decode_error(asked.error.text))
            return asked.reply[:asked.reply_size]
        finally:
            close_request(self.core, asked)

    cdef int replace_version(self, str name, int64_t version, object entry) except -1:
        """Publish a new entry (None removes) and retire the old one."""
        with self._lock:
            if self._closed:
                raise ValueError("the engine is closed")
            if reserve_alarm(&self.core.pool, len(self._versions) + 2) != 0:
                raise MemoryError
            versions = dict(self._versions)
            previous = versions.pop((name, version), None)
            if entry is not None:
                versions[name, version] = entry
            publish_routes(self.core, versions)
            self._versions = versions
        self.retire_version(previous)
        return 0

    cdef int retire_version(self, object entry) except -1:
        """Finish what an unpublished version has admitted, then free its queue."""
        if not isinstance(entry, LoadedVersion):
            return 0
        cdef batcher* queue = &(<LoadedVersion> entry).queue
        with self._retiring:
            with nogil:
                wait_idle(queue, INT64_MAX)
            with self._lock, nogil:
                # A cancellation may have found a request of this queue still running just before it became idle.
                sections_wait(&self.core.sections)
            with nogil:
                close_batcher(queue)
            queue.pool = NULL
        return 0


def check_batchable(session):
    """Raise ValueError unless every input and output has an open first dimension."""
    for kind, specs in (("input", session.inputs), ("output", session.outputs)):
        for spec in specs:
            if not spec.shape or spec.shape[0] != -1:
                raise ValueError(f"{kind} '{spec.name}' has shape {list(spec.shape)}; max_batch_size > 0 needs an open "
                                 "first dimension")


def check_lanes(sessions, instance_count, buffer_sets):
    """Raise ValueError unless the sessions and how they are to be run go together."""
    if not sessions or not all(isinstance(session, Session) for session in sessions):
        raise ValueError("expected a Session, or at least one in a sequence")
    if not 0 <= buffer_sets <= MAX_BUFFER_SETS:
        raise ValueError(f"buffer_sets is {buffer_sets}; expected 0 to {MAX_BUFFER_SETS}")
    if (buffer_sets == 0 and len(sessions) > 1) or (buffer_sets > 0 and instance_count > 1):
        raise ValueError("instances are sessions where these have lanes (buffer_sets > 0), else a count")
    if any((session.inputs, session.outputs) != (sessions[0].inputs, sessions[0].outputs) for session in sessions):
        raise ValueError("the sessions are not of one model: their inputs or outputs differ")


# ---- control plane


cdef int start_lanes(batcher* queue, tuple sessions, int32_t buffer_sets) except -1:
    """Give each session its lane and run the largest batch once on all their buffers."""
    cdef session_core** cores = <session_core**> malloc(len(sessions) * sizeof(session_core*))
    cdef int32_t index
    cdef int failed
    cdef failure error
    if cores == NULL:
        raise MemoryError
    for index in range(len(sessions)):
        cores[index] = &(<Session> sessions[index]).core
    failed = open_lanes(queue, cores, len(sessions), buffer_sets)
    free(cores)
    if failed != 0:
        raise MemoryError("no memory or no thread for a session's lane")
    if not can_run_zeros(&queue.accepted):
        return 0
    for index in range(queue.n_pipelines):
        with nogil:
            failed = warm_up(&queue.pipelines[index], &error)
        # Zeros may be nothing that the model takes: only what they say about memory is of interest.
        if failed != 0 and error.code == EXHAUSTED:
            raise DeviceError(f"a batch of {queue.accepted.max_batch_size} rows does not fit on "
                              f"{sessions[index].device}: {decode_error(error.text)}")
    return 0


cdef int publish_routes(engine_core* core, dict versions) except -1:
    """Make a table of the versions and put it in place; free the old one once nobody reads it."""
    cdef route_table* made = create_routes(2 * len(versions) + 1)
    cdef route_table* old = <route_table*> core.table
    if made == NULL:
        raise MemoryError
    try:
        for (name, version), entry in versions.items():
            add_entry(made, name, version, entry)
        for name, version in default_versions(versions).items():
            add_entry(made, name, 0, versions[name, version])
    except BaseException:
        free_routes(made)
        raise
    pointer_store(&core.table, made)
    with nogil:
        sections_wait(&core.sections)
    free_routes(old)
    return 0


cdef int add_entry(route_table* table, str name, int64_t version, object entry) except -1:
    cdef bytes encoded = name.encode()
    cdef bytes reason
    cdef int failed
    if isinstance(entry, LoadedVersion):
        failed = add_route(table, encoded, len(encoded), version, &(<LoadedVersion> entry).queue, NULL)
    else:
        reason = entry.encode()
        failed = add_route(table, encoded, len(encoded), version, NULL, reason)
    if failed != 0:
        raise MemoryError
    return 0


def default_versions(versions):
    """Return {name: version} of what a request without a version gets: the highest that serves, else the highest."""
    chosen = {}
    for (name, version), entry in versions.items():
        rank = (isinstance(entry, LoadedVersion), version)
        if name not in chosen or rank > chosen[name]:
            chosen[name] = rank
    return {name: version for name, (_, version) in chosen.items()}
