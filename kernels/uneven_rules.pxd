"""How requests of different shapes share a batch: which tensors are laid end to end, and which are padded."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from kernels.session cimport MAX_RANK, Session, tensor_spec

cdef enum:
    MAX_LENGTHS = 16           # lengths that differ from request to request, of padded inputs
    ELEMENT_BYTES = 8          # of the largest number

cdef enum tensor_form:
    BY_ROWS = 0                # the rows of all requests, which have one shape
    END_TO_END = 1             # of an input: all elements of all requests, in one dimension
    PADDED = 2                 # of an input: rows as long as the longest
    SCATTERED = 3              # of an output: all elements of all requests, each of the shape of an input
    CROPPED = 4                # of an output: rows as long as the longest, of which each request gets its own part

cdef enum batch_input_kind:    # the numbers are those of BatchInput.Kind in model_config.proto
    ELEMENT_COUNT = 0
    ACCUMULATED_COUNT = 1
    ACCUMULATED_COUNT_WITH_ZERO = 2
    MAX_COUNT_AS_SHAPE = 3
    ITEM_SHAPE = 4
    ITEM_SHAPE_FLATTEN = 5


cdef struct uneven_input:
    int form
    uint8_t[ELEMENT_BYTES] filler     # what pads it: one element
    int32_t[MAX_RANK] lengths         # of PADDED, by dimension: which length it has, -1 for a fixed one


cdef struct uneven_output:
    int form
    int32_t source                    # of SCATTERED: the input whose shape decides
    tensor_spec shape                 # of SCATTERED: one request's; what is open has the size of the source's dimension
    int32_t[MAX_RANK] lengths         # of CROPPED, as of an input


cdef struct batch_input:              # an input that the server makes from the batch
    int32_t input
    int kind                          # batch_input_kind
    int32_t source
    bint is_float                     # FP32, else INT32


cdef struct length_source:            # where a request has a length
    int32_t input
    int32_t axis


cdef struct uneven_rules:
    int32_t n_inputs
    int32_t n_outputs
    uneven_input* inputs              # one for each of the model's, as the outputs
    uneven_output* outputs
    tensor_spec* bound                # the model's inputs, but for ragged ones, which are as requests give them
    batch_input* made
    int32_t n_made
    bint has_ragged
    int32_t n_lengths                 # 0 where nothing is padded
    length_source[MAX_LENGTHS] sources
    int64_t multiple                  # a padded length is one of this
    double max_ratio                  # elements of a padded batch to those that its requests have alone, at most


cdef class UnevenRules:
    cdef uneven_rules core
    cdef readonly Session session

    cdef int add_ragged(self, object given) except -1
    cdef int add_made(self, object given) except -1
    cdef int32_t find_source(self, str name) except -1
    cdef int add_scattered(self, object given) except -1
    cdef int add_padded(self, object given, dict lengths) except -1
    cdef int crop_outputs(self, dict lengths, object uncropped) except -1


cdef inline bint is_padded(const uneven_rules* rules, int32_t index, int32_t axis) noexcept nogil:
    """Whether requests of different sizes in a dimension of an input go together."""
    return rules.inputs[index].form == PADDED and rules.inputs[index].lengths[axis] >= 0
