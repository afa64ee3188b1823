"""One ONNX Runtime session as the batcher sees it: typed inputs and outputs, run on buffers that the caller owns."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.cuda_runtime cimport CudaRuntime
from kernels.device cimport device
from kernels.failure cimport failure
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


cdef class Session:
    cdef session_core core
    cdef object _keep          # the bytes objects behind every name pointer
    cdef readonly tuple inputs
    cdef readonly tuple outputs
    cdef readonly str path
    cdef readonly str device
    cdef readonly tuple recorded_sizes   # ascending; batches of no more rows are filled up to the next
    cdef CudaRuntime _cuda     # whose stream the session has, if it records its runs on a GPU
    cdef bint _records

    cdef dict make_stream(self, int gpu)
    cdef int open_device(self, found) except -1
    cdef tuple describe_tensors(self, bint is_input, object optional)


cdef void count_inner_elements(tensor_spec* spec) noexcept nogil
cdef int bind_tensor(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil
cdef int bind_on_gpu(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil
cdef int create_strings(session_core* core, const int64_t* shape, int32_t rank, OrtValue** value,
                        failure* error) noexcept nogil
cdef int64_t fill_strings(session_core* core, OrtValue* value, int64_t first, const uint8_t* content, size_t size,
                          failure* error) noexcept nogil
cdef int run_session(session_core* core, OrtValue** inputs, OrtValue** outputs, failure* error) noexcept nogil
cdef int describe_value(session_core* core, OrtValue* value, tensor_data* out, failure* error) noexcept nogil
cdef int read_numbers(session_core* core, OrtValue* value, size_t element_size, tensor_data* out,
                      failure* error) noexcept nogil
cdef int read_strings(session_core* core, OrtValue* value, int64_t elements, uint8_t** buffer, size_t* capacity,
                      size_t** offsets, size_t* offsets_capacity, failure* error) noexcept nogil
cdef void release_values(session_core* core, OrtValue** values, int32_t count) noexcept nogil
