"""Makes the rules by which a version keeps sequences, and hides from callers what the server fills in and takes."""

from collections import namedtuple

from cython cimport final, no_gc_clear
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from kernels.datatype cimport DT_BYTES, datatype_size
from kernels.session cimport MAX_RANK, Session, tensor_spec

SequenceControl = namedtuple("SequenceControl", "input kind false true", defaults=(b"", b""))
SequenceControl.__doc__ = """An input that the server fills: its name, "start", "ready", "end" or "id", and, but for an
id, the bytes of an element that says false and of one that says true."""
SequenceState = namedtuple("SequenceState", "input output shape initial")
SequenceState.__doc__ = """A state: the names of its input and output, and its shape and elements, in raw layout, when a
sequence begins; of a model that batches, those of one row."""

# Twelve days: what is longer is no timeout.
MAX_IDLE_US = 1_000_000_000_000
KINDS = {"start": CONTROL_START, "ready": CONTROL_READY, "end": CONTROL_END, "id": CONTROL_ID}


@final
@no_gc_clear
cdef class SequenceRules:
    """How a version keeps sequences; goes to Engine.load beside the session, of which it hides tensors.

    Parameters
    ----------
    session : Session
        The model, its inputs narrowed already.
    slots : int
        Sequences under way at a time; more of them wait.
    idle_us : int
        How long, in microseconds, a sequence may be without a request before it ends.
    enough_rows : int
        A batch of so many requests does not wait for more; 0 is a full one.
    controls : sequence of SequenceControl
    states : sequence of SequenceState
    shown : set of str
        State outputs that callers see all the same.

    Raises
    ------
    ValueError
        A number is out of range, or a tensor is not the model's or not of the form that it needs.
    """

    def __cinit__(self, Session session not None, *, int64_t slots, int64_t idle_us, int64_t enough_rows=0, controls=(),
                  states=(), shown=()):
        if slots < 1 or not 0 < idle_us <= MAX_IDLE_US or enough_rows < 0:
            raise ValueError(f"slots must be at least 1, idle_us from 1 to {MAX_IDLE_US}, enough_rows at least 0")
        self.session = session
        self._kept = []
        self.core.slots, self.core.idle_ns, self.core.enough_rows = slots, idle_us * 1000, enough_rows
        self.core.controls = <control_rule*> calloc(len(controls) + 1, sizeof(control_rule))
        self.core.states = <state_rule*> calloc(len(states) + 1, sizeof(state_rule))
        if self.core.controls == NULL or self.core.states == NULL:
            raise MemoryError
        for given in controls:
            self.add_control(&self.core.controls[self.core.n_controls], given)
            self.core.n_controls += 1
        for given in states:
            self.add_state(&self.core.states[self.core.n_states], given, shown)
            self.core.n_states += 1

    def __dealloc__(self):
        free(self.core.controls)
        free(self.core.states)

    cdef int add_control(self, control_rule* made, object given) except -1:
        cdef tensor_spec* spec
        cdef bytes false = given.false
        cdef bytes true = given.true
        made.input = hide_input(self.session, given.input)
        made.kind = KINDS[given.kind]
        spec = &self.session.core.inputs[made.input]
        made.size = datatype_size(spec.datatype)
        fill_open(spec, made.shape)
        if count_elements(made.shape, spec.rank) != 1:
            raise ValueError(f"input '{given.input}' has more than one element for a request; a control has one")
        if made.kind == CONTROL_ID:
            self.core.id_datatype = spec.datatype
            return 0
        if spec.datatype == DT_BYTES or len(false) != made.size or len(true) != made.size:
            raise ValueError(f"input '{given.input}' has elements of {made.size} bytes; given {false!r} and {true!r}")
        memcpy(made.values[0], <const char*> false, made.size)
        memcpy(made.values[1], <const char*> true, made.size)
        return 0

    cdef int add_state(self, state_rule* made, object given, object shown) except -1:
        cdef bytes initial = given.initial
        cdef const tensor_spec* taken
        made.input = hide_input(self.session, given.input)
        made.output = find_place(self.session.outputs, "output", given.output)
        taken = &self.session.core.inputs[made.input]
        check_state(taken, &self.session.core.outputs[made.output], given)
        for axis, dimension in enumerate(given.shape):
            made.initial_shape[axis] = dimension
        if taken.datatype != DT_BYTES and (
                count_elements(made.initial_shape, taken.rank) * <int64_t> datatype_size(taken.datatype) != len(initial)):
            raise ValueError(f"state '{given.input}' of shape {list(given.shape)} does not have {len(initial)} bytes")
        made.initial = <const uint8_t*> <const char*> initial
        made.initial_size = len(initial)
        self._kept.append(initial)
        if given.output not in shown:
            hide_output(self.session, made.output)
        return 0


cdef int32_t find_place(tuple specs, str side, str name) except -1:
    for place, spec in enumerate(specs):
        if spec.name == name:
            return place
    raise ValueError(f"the model has no {side} '{name}'")


cdef int32_t hide_input(Session session, str name) except -1:
    """Keep callers from giving an input; return which it is."""
    cdef int32_t place = find_place(session.inputs, "input", name)
    if session.core.inputs[place].is_hidden:
        raise ValueError(f"input '{name}' cannot have two controls or states")
    session.core.inputs[place].is_hidden = True
    return place


cdef int hide_output(Session session, int32_t place) except -1:
    if session.core.outputs[place].is_hidden:
        raise ValueError(f"output '{session.outputs[place].name}' cannot be of two states")
    session.core.outputs[place].is_hidden = True
    return 0


cdef int check_state(const tensor_spec* taken, const tensor_spec* given, object state) except -1:
    """Raise ValueError unless what the model gives can be what it takes the next time, and so can the initial state."""
    shape = tuple(state.shape)
    if taken.datatype != given.datatype or taken.rank != given.rank or len(shape) != taken.rank:
        raise ValueError(f"state '{state.input}' and output '{state.output}' must have the same datatype and rank")
    for axis in range(taken.rank):
        if taken.dims[axis] >= 0 and given.dims[axis] >= 0 and taken.dims[axis] != given.dims[axis]:
            raise ValueError(f"state '{state.input}' and output '{state.output}' differ in dimension {axis}")
        if shape[axis] < 0 or (taken.dims[axis] >= 0 and taken.dims[axis] != shape[axis]):
            raise ValueError(f"state '{state.input}' cannot begin with shape {list(shape)}")
    return 0


cdef void fill_open(const tensor_spec* spec, int64_t* shape) noexcept nogil:
    """The shape of one row whose other open dimensions are 1."""
    cdef int32_t axis
    for axis in range(spec.rank):
        shape[axis] = max(spec.dims[axis], <int64_t> 1) if spec.dims[axis] != 0 else 0


cdef int64_t count_elements(const int64_t* shape, int32_t rank) noexcept nogil:
    """The product of dimensions that come from a model and its configuration."""
    cdef int64_t elements = 1
    cdef int32_t axis
    for axis in range(rank):
        elements *= shape[axis]
    return elements
