"""Measures whether a model is quick enough to run on an I/O thread, which nothing else can use meanwhile.

A model starts on the workers. After each of its first runs there its largest batch is run once more, on zeros: no
caller waits longer for that than one such run. When the 99th percentile is within the limit of time, the model runs
inline; one run over the limit sends it back, to be measured again. A model that is about as slow as the limit would go to
and fro, and be measured most of the time: each decision against it that comes soon doubles the pause before the next.
"""

from libc.stdint cimport int64_t

from kernels.datatype cimport DT_BYTES, datatype_size
from kernels.failure cimport failure
from kernels.instance cimport instance
from kernels.session cimport tensor_spec
from kernels.signature cimport signature
from kernels.status cimport OK
from kernels.zeros cimport run_zeros

cdef enum:
    PROBES = 128
    ALLOWED_OVERRUNS = 1               # of so many: the 99th percentile
    STEADY_RUNS = 4096                 # inline: what comes then is no sign of a slow model
    FIRST_PAUSE = 1024
    LONGEST_PAUSE = 1 << 20
    MAX_INPUT_BYTES = 1024 * 1024      # a larger batch takes longer than the limit to be copied


cdef void open_placement(placement* made, const signature* accepted) noexcept nogil:
    """Say whether the model can be measured: inputs of fixed size but for the batch, and no strings."""
    cdef int64_t rows = max(accepted.max_batch_size, <int64_t> 1), elements, total = 0
    cdef int index
    made.is_measurable = can_run_zeros(accepted)
    if not made.is_measurable:
        return
    for index in range(accepted.core.n_inputs):
        elements = accepted.core.inputs[index].inner_elements
        if accepted.max_batch_size == 0:
            rows = accepted.core.inputs[index].dims[0]
        if elements > MAX_INPUT_BYTES or rows > MAX_INPUT_BYTES:
            made.is_measurable = False
            return
        total += rows * elements * <int64_t> datatype_size(accepted.core.inputs[index].datatype)
    made.is_measurable = total <= MAX_INPUT_BYTES


cdef bint can_run_zeros(const signature* accepted) noexcept nogil:
    """Tell whether the largest batch can be made up: inputs of fixed size but for the batch, and no strings."""
    cdef const tensor_spec* spec
    cdef int index
    if accepted.uneven != NULL:
        return False
    for index in range(accepted.core.n_inputs):
        spec = &accepted.core.inputs[index]
        if (spec.inner_elements < 0 or spec.datatype == DT_BYTES or spec.rank == 0
                or (accepted.max_batch_size == 0 and spec.dims[0] < 0)):
            return False
    return True


cdef void place_next(placement* place, instance* used) noexcept nogil:
    """Decide where the next runs take place, after one whose phases `used` holds. No lock held."""
    cdef bint was_quick = used.gather_ns + used.run_ns + used.encode_ns <= place.limit_ns
    if place.mode != PLACE_MEASURED:
        place.is_inline = place.mode == PLACE_INLINE
        return
    place.runs += 1
    if place.is_inline:
        if not was_quick:
            decide(place, False)
    elif was_quick and place.is_measurable and place.runs > place.pause:
        probe(place, used)


cdef void decide(placement* place, bint is_inline) noexcept nogil:
    if not is_inline:
        if place.is_inline and place.runs >= STEADY_RUNS:
            place.pause = 0
        else:
            place.pause = min(max(2 * place.pause, <int64_t> FIRST_PAUSE), <int64_t> LONGEST_PAUSE)
    place.is_inline = is_inline
    place.runs = place.probes = place.overruns = 0


cdef void probe(placement* place, instance* used) noexcept nogil:
    cdef failure error
    error.code = OK
    if run_zeros(used, &error) != 0:
        place.is_measurable = False
        return
    place.probes += 1
    if used.gather_ns + used.run_ns > place.limit_ns:
        place.overruns += 1
    if place.overruns > ALLOWED_OVERRUNS:
        decide(place, False)
    elif place.probes >= PROBES:
        decide(place, True)
