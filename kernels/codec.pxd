"""The codec: views into a ModelInferRequest's bytes, and the encoding of a ModelInferResponse (kernels.response).

A view points into the message: it is good until the message is freed or the view decodes another one.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from kernels.contents cimport CONTENTS_FIELDS, contents_field
from kernels.response cimport encode_response, output_view, response_size, response_view
from kernels.wire cimport (
    CONTENTS_RANGE, DECODE_LIMIT, DECODE_MALFORMED, DECODE_NO_MEMORY, DECODE_OK, bytes_view
)

cdef enum:
    # Of each kind in one message. A two-byte field on the wire becomes a view of up to 200 bytes: without a limit a
    # message of 64 MiB would cost gigabytes. With it, its views stay below 8 MiB.
    MAX_ENTRIES = 16384
    INITIAL_ENTRIES = 8  # of each kind, room in a fresh view
    KEPT_ENTRIES = 64    # of each kind, the most that clear_request_view keeps room for

cdef enum:
    OWNER_REQUEST = -1   # parameter_view.owner; input i is i, requested output j is OWNER_FIRST_OUTPUT - j
    OWNER_FIRST_OUTPUT = -2

cdef enum:
    PARAMETER_UNSET = 0
    PARAMETER_BOOL = 1
    PARAMETER_INT64 = 2
    PARAMETER_STRING = 3
    PARAMETER_DOUBLE = 4
    PARAMETER_UINT64 = 5


cdef struct tensor_view:             # one InferInputTensor
    bytes_view name
    bytes_view datatype_name
    int datatype                     # kernels.datatype code, UNKNOWN for any other name
    int32_t rank
    const int64_t* shape             # into request_view.dims
    bint has_contents                # the field `contents` occurred, perhaps empty
    size_t counts[CONTENTS_FIELDS]   # elements by field number of InferTensorContents
    size_t string_bytes              # sum of the sizes of bytes_contents
    int32_t first_dim                # into request_view.dims
    int32_t first_piece              # into request_view.pieces
    int32_t n_pieces


cdef struct requested_output_view:   # one InferRequestedOutputTensor
    bytes_view name


cdef union parameter_value:
    bint as_bool
    int64_t as_int64
    bytes_view as_string
    double as_double
    uint64_t as_uint64


cdef struct parameter_view:          # one map entry; a later one with the same owner and key replaces it
    int32_t owner
    int kind                         # PARAMETER_..., the field number of the oneof's case
    bytes_view key
    parameter_value value


cdef struct request_view:
    bytes_view model_name
    bytes_view model_version
    bytes_view id
    tensor_view* inputs
    requested_output_view* outputs
    parameter_view* parameters
    bytes_view* raw                  # raw_input_contents
    bytes_view* pieces               # occurrences of `contents`, those of one input together
    int64_t* dims
    int32_t n_inputs, n_outputs, n_parameters, n_raw, n_pieces, n_dims
    int32_t inputs_capacity, outputs_capacity, parameters_capacity, raw_capacity, pieces_capacity, dims_capacity


cdef int init_request_view(request_view* out) noexcept nogil
cdef void free_request_view(request_view* out) noexcept nogil
cdef void clear_request_view(request_view* out) noexcept nogil
cdef int reserve_tensors(request_view* out, int32_t inputs, int32_t outputs, int32_t parameters) noexcept nogil
cdef int decode_request(const uint8_t* data, size_t size, request_view* out) noexcept nogil
cdef const parameter_view* find_parameter(const request_view* request, int32_t owner, const char* key,
                                          size_t size) noexcept nogil
cdef int64_t contents_bytes(const request_view* request, int32_t position, int datatype) noexcept nogil
cdef int read_contents(const request_view* request, int32_t position, int datatype, uint8_t* dst) noexcept nogil
