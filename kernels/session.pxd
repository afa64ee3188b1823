"""One ONNX Runtime session as the batcher sees it: typed inputs and outputs, run on buffers that the caller owns."""

from kernels.cuda_runtime cimport CudaRuntime
from kernels.failure cimport failure
from kernels.ort cimport OrtValue
# Whoever takes a session takes these with it.
from kernels.session_core cimport MAX_RANK, recording, recordings, session_core, tensor_data, tensor_spec
from kernels.tensor_specs cimport count_inner_elements
from kernels.tensor_values cimport (
    bind_on_gpu, bind_tensor, create_strings, describe_value, fill_strings, read_numbers, read_strings, release_values,
)


cdef class Session:
    cdef session_core core
    cdef list _keep            # the bytes objects behind every name pointer
    cdef readonly tuple inputs
    cdef readonly tuple outputs
    cdef readonly str path
    cdef readonly str device
    cdef readonly tuple recorded_sizes   # ascending; batches of no more rows are filled up to the next
    cdef CudaRuntime _cuda     # whose stream the session has, if it records its runs on a GPU
    cdef bint _records

    cdef dict make_stream(self, int gpu)
    cdef int open_device(self, found) except -1


cdef int run_session(session_core* core, OrtValue** inputs, OrtValue** outputs, failure* error) noexcept nogil
