"""Reads what versions count, and keeps what those counted that left memory: with their next load it goes on from there.

Everything here is done under the engine's lock, so that nobody finds the counts of a version twice or not at all.
`versions` and `past` have (name, version) as keys; what they hold stands in engine.pxd.
"""

from cython cimport final
from libc.stdint cimport int64_t
from libc.string cimport memset

from kernels.batcher cimport batcher
from kernels.batcher_counts cimport read_counts, read_statistics, read_use, reset_counts, set_trace_rate
from kernels.parking cimport DormantModel
from kernels.statistics cimport (
    add_statistics, describe_counters, describe_statistics, free_statistics, statistics,
)
from kernels.version_sequences cimport count_sequences
from kernels.version_table cimport LoadedVersion


@final
cdef class PastCounts:
    """The counts of one version, of all its stays in memory but for the one that goes on."""

    def __cinit__(self):
        self.leaving = []

    def __dealloc__(self):
        free_statistics(&self.counts)


# ---- beginning


cdef int begin_counts(dict changes) except -1:
    """Begin the counts of what is about to be put in place."""
    for entry in changes.values():
        if isinstance(entry, LoadedVersion):
            reset_counts(&(<LoadedVersion> entry).queue)
    return 0


cdef int set_rates(dict versions, dict rates) except -1:
    """Have requests traced, one in so many by model name, "" for all others."""
    for (name, _), entry in versions.items():
        if isinstance(entry, LoadedVersion):
            set_trace_rate(&(<LoadedVersion> entry).queue, rates.get(name, rates[""]))
    return 0


# ---- keeping


cdef int follow_counts(dict past, dict before, dict changes) except -1:
    """Follow an exchange: what is put to rest counts on with its next load, what is removed or replaced does not."""
    cdef PastCounts kept
    for key, entry in changes.items():
        previous = before.get(key)
        if isinstance(entry, DormantModel) and isinstance(previous, LoadedVersion):
            kept = past.setdefault(key, PastCounts())
            kept.leaving.append(previous)
            (<LoadedVersion> previous).past = kept
        elif entry is None or (isinstance(entry, LoadedVersion) and isinstance(previous, LoadedVersion)):
            past.pop(key, None)
    return 0


cdef int end_stay(LoadedVersion gone) except -1:
    """Keep the counts of a version that is idle and about to be freed, if it was put to rest."""
    cdef PastCounts kept = gone.past
    if kept is None:
        return 0
    # Without memory those by rows are lost.
    add_statistics(&kept.counts, &gone.queue.counts)
    kept.leaving = [other for other in kept.leaving if other is not gone]
    gone.past = None
    return 0


# ---- reading


cdef dict describe_totals(dict versions, dict past, tuple key):
    """As Engine.statistics."""
    cdef statistics read
    cdef int64_t queued = 0, running = 0, sequences = 0
    cdef bint is_inline = False
    cdef batcher* queue = find_queue(versions, past, key)
    memset(&read, 0, sizeof(statistics))
    if queue != NULL:
        queued = read_counts(queue, &read.total, &running, &is_inline)
        sequences = max(count_sequences(queue), 0)
    try:
        add_past(past.get(key), &read)
        state = {"queued": queued, "running": running, "inline": bool(is_inline), "sequences": sequences}
        return {**describe_counters(&read.total), **state}
    finally:
        free_statistics(&read)


cdef object describe_version(dict versions, dict past, tuple key):
    """As Engine.read_statistics."""
    cdef statistics read
    cdef int64_t queued = 0, sequences = -1
    cdef batcher* queue = find_queue(versions, past, key)
    memset(&read, 0, sizeof(statistics))
    if queue != NULL:
        queued = read_statistics(queue, &read)
        sequences = count_sequences(queue)
    try:
        if queued < 0:
            raise MemoryError
        add_past(past.get(key), &read)
        return describe_statistics(key[0], key[1], &read, queued, sequences)
    finally:
        free_statistics(&read)


cdef dict describe_use(dict versions):
    """As Engine.read_use."""
    cdef int64_t last_used_ns = 0
    cdef bint is_used
    found = {}
    for (name, _), entry in versions.items():
        if isinstance(entry, LoadedVersion):
            is_used = read_use(&(<LoadedVersion> entry).queue, &last_used_ns)
            before_ns, was_used = found.get(name, (0, False))
            found[name] = (max(before_ns, last_used_ns), was_used or is_used)
    return found


cdef batcher* find_queue(dict versions, dict past, tuple key) except? NULL:
    """The queue of a version that is in memory, NULL of a dormant one that has been; KeyError of all others."""
    entry = versions[key]
    if isinstance(entry, LoadedVersion):
        return &(<LoadedVersion> entry).queue
    if isinstance(entry, DormantModel) and key in past:
        return NULL
    raise KeyError(key)


cdef int add_past(PastCounts kept, statistics* total) except -1:
    """Add what was counted in earlier stays, of which there may be none, to what the version counts now."""
    cdef statistics copied
    cdef int failed
    if kept is None:
        return 0
    failed = add_statistics(total, &kept.counts)
    for leaving in kept.leaving:
        if read_statistics(&(<LoadedVersion> leaving).queue, &copied) < 0:
            failed = -1
        else:
            failed = min(failed, add_statistics(total, &copied))
            free_statistics(&copied)
    if failed != 0:
        raise MemoryError
    return 0
