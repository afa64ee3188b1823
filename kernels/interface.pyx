"""Makes the callers' view of a model's tensors from shapes and labels that a configuration gives."""

from cython cimport final, no_gc_clear
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from kernels.session cimport MAX_RANK, Session, count_inner_elements, tensor_spec
from kernels.wire cimport bytes_view


@final
@no_gc_clear
cdef class Labels:
    """The names of classes of each output.

    Parameters
    ----------
    labels : sequence of list of bytes
        One list for each output; an empty one for none.
    """

    def __cinit__(self, list labels not None):
        cdef bytes_view* views
        cdef bytes label
        self._kept = [list(given) for given in labels]
        self.lists = <label_list*> calloc(len(labels) + 1, sizeof(label_list))
        if self.lists == NULL:
            raise MemoryError
        for given in self._kept:
            views = <bytes_view*> calloc(len(given) + 1, sizeof(bytes_view))
            if views == NULL:
                raise MemoryError
            self.lists[self.count].labels = views
            self.lists[self.count].count = len(given)
            self.count += 1
            for index, label in enumerate(given):
                views[index] = bytes_view(<const uint8_t*> <const char*> label, len(label))

    def __dealloc__(self):
        cdef int32_t index
        for index in range(self.count):
            free(<void*> self.lists[index].labels)
        free(self.lists)


@final
@no_gc_clear
cdef class Interface:
    """What callers of a model version see; goes to Engine.load beside the session.

    Parameters
    ----------
    session : Session
        The model, its inputs narrowed already.
    inputs, outputs : sequence of tuple of int, or None
        The shape of each as requests and replies have it, in the model's order, the batch first where there is one; -1
        is open. None where callers see the model's own.
    made : sequence of tuple of int, or None
        With `outputs`: the shapes that the model must make.
    labels : sequence of list of bytes, or None
        For each output the names of its classes; an empty list for none.
    apart : set of str
        Ragged inputs and scattered outputs, whose shapes UnevenRules turn into each other.

    Raises
    ------
    ValueError
        A shape cannot be converted: another number of open dimensions than its counterpart's, or of tensors than the
        model's.
    """

    def __cinit__(self, Session session not None, *, inputs=None, outputs=None, made=None, labels=None, apart=()):
        self.session = session
        if inputs is not None:
            self.core.inputs = self.reshape(session.core.inputs, session.core.n_inputs, inputs)
            check_pairs(self.core.inputs, session.core.inputs, session.core.n_inputs, apart)
        if outputs is not None:
            self.core.outputs = self.reshape(session.core.outputs, session.core.n_outputs, outputs)
            self.core.made = self.reshape(session.core.outputs, session.core.n_outputs, made)
            check_pairs(self.core.outputs, self.core.made, session.core.n_outputs, apart)
        if labels is not None:
            self._labels = Labels([given for given, _ in zip(labels, session.outputs, strict=True)])
            self.core.labels = self._labels.lists

    def __dealloc__(self):
        free(self.core.inputs)
        free(self.core.outputs)
        free(self.core.made)

    @property
    def converts_inputs(self):
        """Whether callers give inputs in shapes of their own."""
        return self.core.inputs != NULL

    cdef tensor_spec* reshape(self, const tensor_spec* specs, int32_t count, object shapes) except NULL:
        """Copy specs with other shapes; the caller keeps the array."""
        if len(shapes) != count or max(map(len, shapes), default=0) > MAX_RANK:
            raise ValueError(f"expected {count} shapes of at most {MAX_RANK} dimensions, given {list(shapes)}")
        cdef tensor_spec* copied = <tensor_spec*> calloc(count + 1, sizeof(tensor_spec))
        if copied == NULL:
            raise MemoryError
        memcpy(copied, specs, count * sizeof(tensor_spec))
        for index, shape in enumerate(shapes):
            copied[index].rank = len(shape)
            for axis, dimension in enumerate(shape):
                copied[index].dims[axis] = dimension
            count_inner_elements(&copied[index])
        return copied


cdef int check_pairs(const tensor_spec* one, const tensor_spec* other, int32_t count, object apart) except -1:
    """Raise ValueError unless each two specs have as many open dimensions: those are carried over in their order."""
    cdef int32_t index
    for index in range(count):
        name = (<bytes> one[index].name).decode()
        if name not in apart and count_open(&one[index]) != count_open(&other[index]):
            raise ValueError(f"tensor '{name}' has {count_open(&one[index])} open "
                             f"dimensions for callers and {count_open(&other[index])} for the model")
    return 0


cdef int32_t count_open(const tensor_spec* spec) noexcept nogil:
    cdef int32_t axis, found = 0
    for axis in range(spec.rank):
        found += spec.dims[axis] < 0
    return found


cdef void convert_shape(const tensor_spec* known, const int64_t* shape, const tensor_spec* wanted,
                        int64_t* converted) noexcept nogil:
    """Write the shape that a tensor of `shape`, which fits `known`, has in the form `wanted`.

    Fixed dimensions are those of `wanted`; the open ones, the batch among them, are carried over in their order.
    """
    cdef int32_t axis, place = 0
    for axis in range(wanted.rank):
        if wanted.dims[axis] >= 0:
            converted[axis] = wanted.dims[axis]
            continue
        while known.dims[place] >= 0:
            place += 1
        converted[axis] = shape[place]
        place += 1


cdef int32_t convert_in_place(const tensor_spec* known, const tensor_spec* wanted, int64_t* shape) noexcept nogil:
    """As convert_shape, over the shape itself; return its rank then."""
    cdef int64_t converted[MAX_RANK]
    convert_shape(known, shape, wanted, converted)
    memcpy(shape, converted, wanted.rank * sizeof(int64_t))
    return wanted.rank


cdef bint fits(const tensor_spec* spec, const int64_t* shape, int32_t rank) noexcept nogil:
    """Tell whether a shape has a spec's rank and fixed dimensions."""
    cdef int32_t axis
    if rank != spec.rank:
        return False
    for axis in range(rank):
        if spec.dims[axis] >= 0 and spec.dims[axis] != shape[axis]:
            return False
    return True
