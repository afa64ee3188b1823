"""Keeps the times of sampled requests in a book of fixed size, and hands the book's entries to Python."""

from collections import namedtuple

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strlen

from kernels.request cimport request
from kernels.statistics cimport batch_times
from kernels.sync cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

Trace = namedtuple("Trace", "model version request_id arrival_ns taken_ns gathered_ns ran_ns ended_ns")
Trace.__doc__ = """One request's way, by a monotonic clock: arrived, left the queue, gathered, run, answered."""


cdef int open_traces(trace_book* made) noexcept nogil:
    """Make an empty book. 0, or -1."""
    made.records = NULL
    made.kept = made.dropped = 0
    return pthread_mutex_init(&made.lock, NULL)


cdef void close_traces(trace_book* used) noexcept nogil:
    """Free a book that nobody writes any more."""
    free(used.records)
    pthread_mutex_destroy(&used.lock)


cdef void trace_batch(trace_sampling* sampling, const char* model, int64_t version, const request* batch,
                      const batch_times* spent) noexcept nogil:
    """Keep the sampled among a batch's requests, whose messages are still there; the first of all is one."""
    while batch != NULL:
        if sampling.passed == 0 and not batch.cancelled:
            keep_trace(sampling.book, model, version, batch, spent)
        sampling.passed = (sampling.passed + 1) % sampling.rate
        batch = batch.next


cdef void keep_trace(trace_book* book, const char* model, int64_t version, const request* traced,
                     const batch_times* spent) noexcept nogil:
    cdef trace_record* record
    pthread_mutex_lock(&book.lock)
    if book.records == NULL:
        book.records = <trace_record*> malloc(KEPT_TRACES * sizeof(trace_record))
    if book.records == NULL or book.kept == KEPT_TRACES:
        book.dropped += 1
    else:
        record = &book.records[book.kept]
        book.kept += 1
        copy_text(record.model, TRACED_NAME_BYTES, model, strlen(model))
        copy_text(record.request_id, TRACED_ID_BYTES, <const char*> traced.view.id.data, traced.view.id.size)
        record.version = version
        record.arrival_ns = traced.arrival_ns
        record.spent = spent[0]
    pthread_mutex_unlock(&book.lock)


cdef void copy_text(char* target, size_t most, const char* source, size_t size) noexcept nogil:
    cdef size_t copied = min(size, most)
    if copied > 0:
        memcpy(target, source, copied)
    target[copied] = 0


cdef tuple take_traces(trace_book* book):
    """Empty the book; return its Traces, the oldest first, and how many found no place in it."""
    cdef trace_record* records
    cdef int64_t kept, dropped, index
    with nogil:
        pthread_mutex_lock(&book.lock)
        records = book.records
        kept = book.kept
        dropped = book.dropped
        book.records = NULL
        book.kept = book.dropped = 0
        pthread_mutex_unlock(&book.lock)
    try:
        return [describe_trace(&records[index]) for index in range(kept)], dropped
    finally:
        free(records)


cdef object describe_trace(const trace_record* record):
    cdef int64_t ran_ns = record.spent.ended_ns - record.spent.encode_ns
    return Trace(
        decode_text(record.model), record.version, decode_text(record.request_id), record.arrival_ns,
        max(record.spent.taken_ns, record.arrival_ns), ran_ns - record.spent.run_ns, ran_ns, record.spent.ended_ns)


cdef str decode_text(const char* text):
    """An id may have been cut in the midst of a character."""
    return text[:strlen(text)].decode("utf-8", "replace")
