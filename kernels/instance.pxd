"""The buffers of one run at a time, and the way through them: gather a batch, run it, encode each caller's rows."""

from libc.stdint cimport int64_t, uint8_t

from kernels.codec cimport output_view
from kernels.failure cimport failure
from kernels.ort cimport OrtValue
from kernels.request cimport request
from kernels.session cimport recording, session_core, tensor_data
from kernels.signature cimport signature
from kernels.uneven_batch cimport uneven_batch


cdef struct version_name:
    char* model              # owned
    size_t model_size
    char version[24]
    size_t version_size


cdef struct instance:
    instance* next
    const signature* accepted
    session_core* core       # what runs its batches; of the same model as the signature's
    const version_name* served
    OrtValue** inputs        # alive during a run only
    OrtValue** outputs
    uint8_t** input_buffers  # one per model input, where a batch is gathered
    size_t* input_capacities
    uint8_t** output_buffers  # one per model output: given to Run, or where strings are laid out after it
    size_t* output_capacities
    size_t** offsets         # string outputs: where each element starts in its buffer
    size_t* offsets_capacities
    tensor_data* results     # what the run gave
    output_view* views       # one reply's outputs
    int64_t* shapes          # one reply's shapes, MAX_RANK for each output
    uneven_batch* uneven     # NULL where all requests of a batch have one shape
    bint own_outputs         # Run allocates its outputs: their shapes are not known before
    const recording* recorded  # how the batch is run, with rows added; NULL for a run of its own rows
    bint is_encoded          # the run writes its output into the reply
    int64_t taken_ns         # when the last batch left the queue
    int64_t rows             # of it
    int64_t phase_ns         # when the phase began that it is in
    int64_t wait_ns          # how long it waited, gathered, for the session, and run, for a worker
    int64_t gather_ns        # how long its phases took
    int64_t run_ns
    int64_t encode_ns
    int64_t ended_ns         # when they had ended


cdef int execute_batch(instance* used, request* batch, int64_t rows, int64_t now_ns, failure* error) noexcept nogil
cdef int prepare_batch(instance* used, request* batch, int64_t rows, int64_t now_ns, failure* error) noexcept nogil
cdef int run_prepared(instance* used, failure* error) noexcept nogil
cdef int finish_batch(instance* used, request* batch, int64_t rows, int failed, failure* error) noexcept nogil
cdef int64_t end_phase(instance* used) noexcept nogil
cdef void begin_batch(instance* used, int64_t rows, int64_t now_ns) noexcept nogil
cdef int bind_outputs(instance* used, request* batch, int64_t rows, failure* error) noexcept nogil
cdef void release_tensors(instance* used) noexcept nogil
