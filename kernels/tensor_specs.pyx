"""Reads from a model what its tensors are, and tells what follows from that for its batches."""

from collections import namedtuple

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc

from kernels.datatype cimport DT_BYTES, datatype_from_onnx, datatype_name
from kernels.ort cimport *
from kernels.runtime cimport raise_status
from kernels.session_core cimport MAX_RANK

from kernels.session_errors import SessionError

cdef enum:  # where a tensor of a model is described
    INPUT = 0
    OUTPUT = 1
    INITIALIZER = 2

TensorSpec = namedtuple("TensorSpec", "name datatype shape dim_names")
TensorSpec.__doc__ = """A model's input or output: name, wire datatype, shape (-1 is open), symbolic dimension names ("" where none)."""


cdef tuple describe_tensors(session_core* core, bint is_input, list optional, list kept):
    """Read every input's (or output's) spec into the core; return them for Python.

    `optional` lists the numbers of initializers that are to be inputs too.
    """
    cdef size_t count = 0
    cdef ort_table api = core.runtime.api
    if is_input:
        raise_status(api, ort_SessionGetInputCount(api, core.handle, &count))
    else:
        raise_status(api, ort_SessionGetOutputCount(api, core.handle, &count))
    places = [(INPUT if is_input else OUTPUT, index) for index in range(count)]
    places += [(INITIALIZER, index) for index in optional]
    cdef tensor_spec* specs = <tensor_spec*> calloc(len(places) + 1, sizeof(tensor_spec))
    cdef const char** names = <const char**> calloc(len(places) + 1, sizeof(char*))
    if is_input:
        core.inputs, core.input_names, core.n_inputs = specs, names, len(places)
        core.n_optional = len(optional)
    else:
        core.outputs, core.output_names, core.n_outputs = specs, names, len(places)
    if specs == NULL or names == NULL:
        raise MemoryError
    described = []
    for place, (kind, index) in enumerate(places):
        name = read_name(core, index, kind)
        kept.append(name)
        names[place] = specs[place].name = name
        specs[place].name_size = len(name)
        specs[place].is_optional = kind == INITIALIZER
        described.append(read_spec(core, index, kind, &specs[place]))
    return tuple(described)


cdef list list_optional(session_core* core, object names):
    """The numbers of the initializers with these names; SessionError for one that is none or cannot be replaced."""
    cdef size_t count = 0
    if not names:
        return []
    raise_status(core.runtime.api, ort_SessionGetOverridableInitializerCount(core.runtime.api, core.handle, &count))
    known = {read_name(core, index, INITIALIZER).decode(): index for index in range(count)}
    for name in names:
        if name not in known:
            raise SessionError(f"input '{name}' is to be optional, and the model file has no value for it")
    return [known[name] for name in names]


cdef bytes read_name(session_core* core, size_t index, int kind):
    cdef char* name = NULL
    cdef ort_table api = core.runtime.api
    if kind == INPUT:
        raise_status(api, ort_SessionGetInputName(api, core.handle, index, core.runtime.allocator, &name))
    elif kind == OUTPUT:
        raise_status(api, ort_SessionGetOutputName(api, core.handle, index, core.runtime.allocator, &name))
    else:
        raise_status(api, ort_SessionGetOverridableInitializerName(api, core.handle, index, core.runtime.allocator,
                                                                   &name))
    copied = <bytes> name
    raise_status(api, ort_AllocatorFree(api, core.runtime.allocator, name))
    return copied


cdef object read_spec(session_core* core, size_t index, int kind, tensor_spec* spec):
    """Fill `spec` and return its TensorSpec; raise SessionError for what the protocol cannot carry."""
    cdef OrtTypeInfo* type_info = NULL
    cdef ort_table api = core.runtime.api
    if kind == INPUT:
        raise_status(api, ort_SessionGetInputTypeInfo(api, core.handle, index, &type_info))
    elif kind == OUTPUT:
        raise_status(api, ort_SessionGetOutputTypeInfo(api, core.handle, index, &type_info))
    else:
        raise_status(api, ort_SessionGetOverridableInitializerTypeInfo(api, core.handle, index, &type_info))
    subject = "output" if kind == OUTPUT else "input"
    name = (<bytes> spec.name).decode()
    try:
        return read_tensor_info(core, type_info, spec, f"{subject} '{name}'", name)
    finally:
        ort_ReleaseTypeInfo(api, type_info)


cdef object read_tensor_info(session_core* core, OrtTypeInfo* type_info, tensor_spec* spec, str subject, str name):
    cdef const OrtTensorTypeAndShapeInfo* info = NULL
    cdef const char* symbols[MAX_RANK]
    cdef size_t rank = 0
    cdef ort_table api = core.runtime.api
    raise_status(api, ort_CastTypeInfoToTensorInfo(api, type_info, &info))
    if info == NULL:
        raise SessionError(f"{subject} is a sequence, map or optional; only tensors can be served")
    raise_status(api, ort_GetTensorElementType(api, info, &spec.onnx_type))
    spec.datatype = datatype_from_onnx(spec.onnx_type)
    if spec.datatype == 0:
        raise SessionError(f"{subject} has ONNX element type {spec.onnx_type}, which the protocol cannot carry")
    raise_status(api, ort_GetDimensionsCount(api, info, &rank))
    if rank > MAX_RANK:
        raise SessionError(f"{subject} has rank {rank}; at most {MAX_RANK} is served")
    raise_status(api, ort_GetDimensions(api, info, spec.dims, rank))
    raise_status(api, ort_GetSymbolicDimensions(api, info, symbols, rank))
    spec.rank = rank
    count_inner_elements(spec)
    shape = tuple(max(spec.dims[axis], -1) for axis in range(rank))
    dim_names = tuple((<bytes> symbols[axis]).decode() for axis in range(rank))
    return TensorSpec(name, datatype_name(spec.datatype).decode(), shape, dim_names)


cdef bint can_record(const session_core* core) noexcept nogil:
    """Tell whether all tensors are numbers whose size is known but for the batch."""
    cdef const tensor_spec* spec
    cdef int32_t index
    for index in range(core.n_inputs):
        spec = &core.inputs[index]
        if spec.datatype == DT_BYTES or spec.rank == 0 or spec.inner_elements < 0:
            return False
    for index in range(core.n_outputs):
        if core.outputs[index].datatype == DT_BYTES:
            return False
    return core.n_optional == 0 and core.batched_outputs


cdef void count_inner_elements(tensor_spec* spec) noexcept nogil:
    cdef int32_t axis
    spec.inner_elements = 1
    for axis in range(1, spec.rank):
        if spec.dims[axis] < 0:
            spec.inner_elements = -1
            return
        spec.inner_elements *= spec.dims[axis]


def outputs_follow_batch(inputs, outputs):
    """Tell whether every output's shape is known from the batch size alone, so that its buffer can be given to Run.

    True when the first dimension of all inputs and outputs carries one symbolic name and no other output dimension is
    open.
    """
    names = {spec.dim_names[0] if spec.dim_names else "" for spec in (*inputs, *outputs)}
    return len(names) == 1 and "" not in names and all(min(spec.shape[1:], default=0) >= 0 for spec in outputs)
