"""Makes the rules by which requests of different shapes share a batch, and hides from callers the inputs that it makes."""

from collections import namedtuple

from cython cimport final, no_gc_clear
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from kernels.datatype cimport DT_BYTES, DT_FP32, DT_INT32, datatype_size
from kernels.session cimport MAX_RANK, Session, count_inner_elements, tensor_spec

RaggedInput = namedtuple("RaggedInput", "input shape")
RaggedInput.__doc__ = """An input whose elements the model gets end to end: its name, and the shape of a request's, the
batch first; -1 is open."""
BatchInput = namedtuple("BatchInput", "input kind source")
BatchInput.__doc__ = """An input that the server makes: its name, one of BATCH_INPUT_KINDS, and the name of the input that
it tells of."""
BatchOutput = namedtuple("BatchOutput", "output shape source")
BatchOutput.__doc__ = """An output that has all requests' elements end to end: its name, the shape of a request's, the
batch first, and the name of the input whose dimensions are those that are open, -1, in it."""
PaddedInput = namedtuple("PaddedInput", "input filler")
PaddedInput.__doc__ = """An input whose open dimensions are padded: its name, and the bytes of the element that pads it."""

BATCH_INPUT_KINDS = {
    "BATCH_ELEMENT_COUNT": ELEMENT_COUNT,
    "BATCH_ACCUMULATED_ELEMENT_COUNT": ACCUMULATED_COUNT,
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": ACCUMULATED_COUNT_WITH_ZERO,
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": MAX_COUNT_AS_SHAPE,
    "BATCH_ITEM_SHAPE": ITEM_SHAPE,
    "BATCH_ITEM_SHAPE_FLATTEN": ITEM_SHAPE_FLATTEN,
}
MAX_PADDED_LENGTHS = MAX_LENGTHS
MAX_MULTIPLE = 1024


@final
@no_gc_clear
cdef class UnevenRules:
    """How requests of different shapes share a batch; goes to Engine.load beside the session, of which it hides inputs.

    Parameters
    ----------
    session : Session
        The model, its inputs narrowed already.
    ragged : sequence of RaggedInput
    batch_inputs : sequence of BatchInput
    batch_outputs : sequence of BatchOutput
    padded : sequence of PaddedInput
        Dimensions of one symbolic name have one length. An output's dimension of that name is cropped to what the
        request has of it.
    uncropped : set of str
        Outputs that are given as the model makes them of the padded batch all the same.
    multiple : int
        What lengths are rounded up to.
    max_ratio : float
        How many times the elements that its requests have alone a padded batch may have.

    Raises
    ------
    ValueError
        A number is out of range, or a tensor is not the model's or not of the form that it needs.
    """

    def __cinit__(self, Session session not None, *, ragged=(), batch_inputs=(), batch_outputs=(), padded=(),
                  uncropped=(), int64_t multiple=1, double max_ratio=1.5):
        if not 1 <= multiple <= MAX_MULTIPLE or not max_ratio >= 1:
            raise ValueError(f"multiple must be from 1 to {MAX_MULTIPLE}, max_ratio at least 1")
        self.session = session
        self.core.n_inputs, self.core.n_outputs = session.core.n_inputs, session.core.n_outputs
        self.core.multiple, self.core.max_ratio = multiple, max_ratio
        self.core.inputs = <uneven_input*> calloc(self.core.n_inputs + 1, sizeof(uneven_input))
        self.core.outputs = <uneven_output*> calloc(self.core.n_outputs + 1, sizeof(uneven_output))
        self.core.bound = <tensor_spec*> calloc(self.core.n_inputs + 1, sizeof(tensor_spec))
        self.core.made = <batch_input*> calloc(len(batch_inputs) + 1, sizeof(batch_input))
        if self.core.inputs == NULL or self.core.outputs == NULL or self.core.bound == NULL or self.core.made == NULL:
            raise MemoryError
        memcpy(self.core.bound, session.core.inputs, self.core.n_inputs * sizeof(tensor_spec))
        lengths = {}
        for given in ragged:
            self.add_ragged(given)
        for given in padded:
            self.add_padded(given, lengths)
        for given in batch_inputs:
            self.add_made(given)
        for given in batch_outputs:
            self.add_scattered(given)
        if padded:
            check_all_padded(session, {given.input for given in padded}, lengths)
            self.crop_outputs(lengths, uncropped)

    def __dealloc__(self):
        free(self.core.inputs)
        free(self.core.outputs)
        free(self.core.bound)
        free(self.core.made)

    cdef int add_ragged(self, object given) except -1:
        cdef int32_t place = find_input(self.session, given.input)
        cdef tensor_spec* spec = &self.core.bound[place]
        if self.core.inputs[place].form != BY_ROWS:
            raise ValueError(f"input '{given.input}' is given twice")
        if spec.rank != 1 or spec.dims[0] >= 0 or spec.is_optional or self.session.core.inputs[place].is_hidden:
            raise ValueError(f"input '{given.input}' must be every request's, and of shape [-1], to be ragged")
        self.core.inputs[place].form = END_TO_END
        self.core.has_ragged = True
        write_shape(spec, given.shape, f"input '{given.input}'")
        return 0

    cdef int add_made(self, object given) except -1:
        cdef batch_input* made = &self.core.made[self.core.n_made]
        cdef tensor_spec* spec
        cdef int32_t rank
        made.input = find_input(self.session, given.input)
        made.source = self.find_source(given.source)
        made.kind = BATCH_INPUT_KINDS[given.kind]
        spec = &self.session.core.inputs[made.input]
        rank = 2 if made.kind == ITEM_SHAPE else 1
        if (spec.is_hidden or self.core.inputs[made.input].form != BY_ROWS or made.input == made.source
                or made.input in [self.core.made[earlier].source for earlier in range(self.core.n_made)]):
            raise ValueError(f"input '{given.input}' cannot be made and be something else too")
        if spec.datatype not in (DT_INT32, DT_FP32) or spec.rank != rank or spec.dims[0] >= 0:
            raise ValueError(f"input '{given.input}' must be INT32 or FP32 with {rank} dimensions, the first one open")
        if rank == 2 and spec.dims[1] not in (-1, self.core.bound[made.source].rank - 1):
            raise ValueError(f"input '{given.input}' has no room for the shape of '{given.source}'")
        made.is_float = spec.datatype == DT_FP32
        spec.is_hidden = True
        self.core.n_made += 1
        return 0

    cdef int32_t find_source(self, str name) except -1:
        """Return which input another tensor is made by; every request must have it."""
        cdef int32_t place = find_input(self.session, name)
        if self.session.core.inputs[place].is_hidden or self.session.core.inputs[place].is_optional:
            raise ValueError(f"input '{name}' is not given by every request")
        return place

    cdef int add_scattered(self, object given) except -1:
        cdef int32_t place = find_place(self.session.outputs, "output", given.output)
        cdef uneven_output* made = &self.core.outputs[place]
        cdef int32_t axis
        if made.form != BY_ROWS or self.session.core.outputs[place].is_hidden:
            raise ValueError(f"output '{given.output}' is given twice, or is a state")
        made.form = SCATTERED
        made.source = self.find_source(given.source)
        made.shape = self.session.core.outputs[place]
        write_shape(&made.shape, given.shape, f"output '{given.output}'")
        for axis in range(made.shape.rank):
            if made.shape.dims[axis] < 0 and axis >= self.core.bound[made.source].rank:
                raise ValueError(f"output '{given.output}' is open in dimension {axis}, which '{given.source}' lacks")
        return 0

    cdef int add_padded(self, object given, dict lengths) except -1:
        """Number the lengths of an input: those of one symbolic name are one, and one without a name is its own."""
        cdef int32_t place = find_input(self.session, given.input), axis
        cdef uneven_input* made = &self.core.inputs[place]
        cdef const tensor_spec* spec = &self.session.core.inputs[place]
        cdef bytes filler = given.filler
        if spec.datatype == DT_BYTES or spec.is_optional or spec.is_hidden or spec.inner_elements >= 0:
            raise ValueError(f"input '{given.input}' must be of numbers, needed, and have an open dimension to be padded")
        if made.form != BY_ROWS or len(filler) != datatype_size(spec.datatype):
            raise ValueError(f"input '{given.input}' is given twice, or its filler is not one element")
        made.form = PADDED
        memcpy(made.filler, <const char*> filler, len(filler))
        made.lengths[0] = -1
        for axis in range(1, spec.rank):
            made.lengths[axis] = -1
            if spec.dims[axis] >= 0:
                continue
            name = self.session.inputs[place].dim_names[axis] or (place, axis)
            made.lengths[axis] = lengths.setdefault(name, len(lengths))
            if len(lengths) > MAX_LENGTHS:
                raise ValueError(f"at most {MAX_LENGTHS} lengths can be padded")
            if made.lengths[axis] == self.core.n_lengths:
                self.core.sources[self.core.n_lengths] = length_source(place, axis)
                self.core.n_lengths += 1
        return 0

    cdef int crop_outputs(self, dict lengths, object uncropped) except -1:
        cdef int32_t place, axis
        cdef uneven_output* made
        for place, spec in enumerate(self.session.outputs):
            made = &self.core.outputs[place]
            if made.form == SCATTERED or spec.name in uncropped:
                continue
            for axis, (dimension, name) in enumerate(zip(spec.shape, spec.dim_names)):
                made.lengths[axis] = lengths.get(name, -1) if axis > 0 and dimension < 0 else -1
                if made.lengths[axis] >= 0:
                    made.form = CROPPED
            if made.form == CROPPED and self.session.core.outputs[place].is_hidden:
                raise ValueError(f"output '{spec.name}' is a state and cannot be cropped")
        return 0


def check_uneven(UnevenRules uneven, Session session not None, interface, int64_t max_batch_size):
    """Raise ValueError unless a version of this session can serve by these rules; None is no rules."""
    if uneven is None:
        return
    if uneven.session is not session:
        raise ValueError("the rules of uneven batches are of another session")
    if max_batch_size == 0 or session.recorded_sizes:
        raise ValueError("requests of different shapes need max_batch_size > 0 and runs that are not recorded")
    if uneven.core.has_ragged and (interface is None or not interface.converts_inputs):
        raise ValueError("ragged inputs need an interface that says in what shape callers give them")


def check_all_padded(Session session not None, padded, lengths):
    """Raise ValueError for an input that has a padded length and is not padded itself."""
    for place, spec in enumerate(session.inputs):
        for axis, name in enumerate(spec.dim_names):
            if axis > 0 and session.core.inputs[place].dims[axis] < 0 and name in lengths and spec.name not in padded:
                raise ValueError(f"input '{spec.name}' has the length '{name}' too and must be padded")


cdef int32_t find_place(tuple specs, str side, str name) except -1:
    for place, spec in enumerate(specs):
        if spec.name == name:
            return place
    raise ValueError(f"the model has no {side} '{name}'")


cdef int32_t find_input(Session session, str name) except -1:
    return find_place(session.inputs, "input", name)


cdef int write_shape(tensor_spec* spec, object shape, str what) except -1:
    """Give a spec the shape of a request's tensor, the batch first."""
    if not shape or len(shape) > MAX_RANK or shape[0] != -1:
        raise ValueError(f"{what} has shape {list(shape)}; expected an open batch and at most {MAX_RANK} dimensions")
    spec.rank = len(shape)
    for axis, dimension in enumerate(shape):
        spec.dims[axis] = dimension
    count_inner_elements(spec)
    return 0
