"""What the data plane knows of a session: its handle and place, its tensors, its recordings, and a tensor that it gave."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.device cimport device
from kernels.ort cimport OrtRunOptions, OrtSession, OrtValue
from kernels.runtime cimport ort_runtime

cdef enum:
    MAX_RANK = 32  # ranks above it are refused at load; ONNX models stay below 10


cdef struct tensor_spec:
    const char* name          # owned by the Session's Python tuple of bytes
    size_t name_size
    int datatype              # kernels.datatype code
    int onnx_type
    int32_t rank
    int64_t dims[MAX_RANK]    # -1 where the model leaves the dimension open
    int64_t inner_elements    # product of dims[1:], -1 when one of them is open
    bint is_optional          # an input for which the model has a value of its own
    bint is_hidden            # filled or kept by the server: callers neither give nor get it


cdef struct recording:        # of one batch size
    int64_t rows
    OrtRunOptions* options    # say of a run that it is this one's
    OrtValue** inputs         # whole batches of that size, over the places below
    OrtValue** outputs


cdef struct recordings:
    int32_t count
    recording* sizes          # ascending
    uint8_t** inputs          # where on the device they lie, with room for the largest size
    uint8_t** outputs


cdef struct session_core:
    ort_runtime* runtime
    OrtSession* handle
    device place
    int32_t n_inputs
    int32_t n_optional        # of them, the last ones
    int32_t n_outputs
    tensor_spec* inputs
    tensor_spec* outputs
    const char** input_names
    const char** output_names
    bint fixed_outputs        # the shapes of all outputs are known
    OrtRunOptions* run_options  # of every run that is not recorded; NULL where none is
    recordings* recorded      # NULL where none is
    bint batched_outputs      # every output's first dimension carries the inputs' symbolic name, the others are fixed


cdef struct tensor_data:
    const uint8_t* data       # raw layout of the protocol; for BYTES with length prefixes
    size_t size
    int32_t rank
    int64_t shape[MAX_RANK]
    int64_t elements
