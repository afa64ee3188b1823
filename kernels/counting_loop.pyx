"""Counts batches that nobody asked for: for measurements only, of what statistics cost a request."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from kernels.request cimport request
from kernels.statistics cimport batch_times, count_batch, free_statistics, statistics
from kernels.sync cimport monotonic_ns


def count_batches(int64_t rows, int64_t batches):
    """Count batches of so many requests of a row each, reading the clock for each phase as a batch does.

    Returns
    -------
    int
        What it took, in nanoseconds.
    """
    cdef statistics kept
    cdef request* batch
    cdef int64_t index, started_ns, spent_ns
    if rows < 1 or batches < 1:
        raise ValueError(f"rows and batches must be at least 1, given {rows} and {batches}")
    batch = <request*> calloc(rows, sizeof(request))
    if batch == NULL:
        raise MemoryError
    memset(&kept, 0, sizeof(statistics))
    with nogil:
        started_ns = monotonic_ns()
        for index in range(rows):
            batch[index].next = &batch[index + 1] if index + 1 < rows else NULL
            batch[index].arrival_ns = started_ns
        for index in range(batches):
            count_one(&kept, batch, rows, started_ns)
        spent_ns = monotonic_ns() - started_ns
    assert kept.total.success == rows * batches
    free_statistics(&kept)
    free(batch)
    return spent_ns


cdef void count_one(statistics* kept, const request* batch, int64_t rows, int64_t taken_ns) noexcept nogil:
    """The time of the taking is known: what waits is given up by it."""
    cdef batch_times spent
    spent.taken_ns = taken_ns
    spent.gather_ns = monotonic_ns() - spent.taken_ns
    spent.run_ns = monotonic_ns() - spent.taken_ns - spent.gather_ns
    spent.ended_ns = monotonic_ns()
    spent.encode_ns = spent.ended_ns - spent.taken_ns - spent.gather_ns - spent.run_ns
    count_batch(kept, batch, rows, &spent, True)
