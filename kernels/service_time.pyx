"""Learns how long runs take, rather too short than too long: it is to say what cannot be done in time, and be right.

An estimate falls quickly and rises slowly, so that it lies near the quick ones of a model whose runs differ, and a few slow
ones, as after a pause, change little. It is silent until it has seen some runs.
"""

from libc.stdint cimport int64_t, uint64_t

from kernels.sync cimport bit_length

cdef enum:
    ENOUGH_RUNS = 16         # of a size class, until something is said of it
    FALL = 4                 # a quicker run takes a quarter of the difference off the estimate
    RISE = 16                # a slower one adds a sixteenth


cdef inline int find_class(int64_t rows) noexcept nogil:
    return min(bit_length(<uint64_t> rows), <int> SIZE_CLASSES) - 1 if rows > 0 else 0


cdef void note_run(service_time* known, int64_t rows, int64_t run_ns) noexcept nogil:
    """Learn from a run."""
    cdef int place = find_class(rows)
    cdef int smaller
    if known.runs[place] == 0:
        known.run_ns[place] = run_ns
    elif run_ns > known.run_ns[place]:
        known.run_ns[place] += (run_ns - known.run_ns[place]) // RISE
    else:
        known.run_ns[place] -= (known.run_ns[place] - run_ns) // FALL
    known.runs[place] += 1
    for smaller in range(place):
        # Fewer rows take no longer: under a load of large batches nothing else would tell.
        if known.run_ns[smaller] > run_ns:
            known.run_ns[smaller] -= (known.run_ns[smaller] - run_ns) // FALL


cdef int64_t expect_run(const service_time* known, int64_t rows) noexcept nogil:
    """Return what a run of so many rows takes at least, by what is known of it or of smaller ones; 0 when nothing is."""
    cdef int place = find_class(rows)
    while place > 0 and known.runs[place] < ENOUGH_RUNS:
        place -= 1
    return known.run_ns[place] if known.runs[place] >= ENOUGH_RUNS else 0
