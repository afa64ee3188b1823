"""ModelInferResponse as the engine gives it: what to encode, how large that is, and the encoder."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.wire cimport bytes_view


cdef struct output_view:      # one InferOutputTensor and its entry of raw_output_contents
    bytes_view name
    int datatype              # kernels.datatype code
    int32_t rank
    const int64_t* shape
    bytes_view content


cdef struct response_parameter:    # one entry of the map of parameters, an int64_param
    bytes_view name
    int64_t value


cdef struct response_view:    # strings must be UTF-8; an empty one is left out, as protobuf does
    bytes_view model_name
    bytes_view model_version
    bytes_view id
    const response_parameter* parameters
    int32_t n_parameters
    const output_view* outputs
    int32_t n_outputs


cdef size_t response_size(const response_view* response) noexcept nogil
cdef size_t encode_response(const response_view* response, uint8_t* dst) noexcept nogil
