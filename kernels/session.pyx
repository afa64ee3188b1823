"""One ONNX Runtime session through the C API: what a model takes and gives, and running it without the GIL.

Runs of one session may overlap on CPU: ONNX Runtime's Run is thread-safe there and shares the weights. The caller owns
every buffer it binds and must keep it until the OrtValue over it is released.
"""

import os
import re
from collections import namedtuple

from cython cimport final
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove

from kernels.datatype cimport datatype_from_onnx, datatype_name
from kernels.device cimport close_device, open_host, open_staging
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.ort cimport *
from kernels.providers cimport append_cuda, append_tensorrt
from kernels.runtime cimport check_status, is_out_of_memory, open_runtime, raise_status
from kernels.status cimport EXHAUSTED, INTERNAL

from kernels.cuda_libraries import load_cuda_libraries
from kernels.providers import ProviderError
from kernels.runtime import RuntimeLibraryError

cdef enum:
    ONNX_STRING = 8

# The CPU, a GPU by its number, and the CPU as if it were a GPU: its tensors in memory that the session allocates.
DEVICE = re.compile(r"(?P<kind>cpu|cuda)(:(?P<ordinal>[0-9]{1,4}))?|(?P<staged>cpu:staged)")

cdef enum:  # where a tensor of a model is described
    INPUT = 0
    OUTPUT = 1
    INITIALIZER = 2

TensorSpec = namedtuple("TensorSpec", "name datatype shape dim_names")
TensorSpec.__doc__ = """A model's input or output: name, wire datatype, shape (-1 is open), symbolic dimension names ("" where none)."""


class SessionError(Exception):
    """A model cannot be loaded; the text says why, in ONNX Runtime's words where they are the better ones."""


class DeviceError(SessionError):
    """A model cannot be loaded where it was meant to run, and perhaps could be elsewhere."""


@final
cdef class Session:
    """A loaded model.

    Parameters
    ----------
    path : str
        The .onnx file. Whoever calls has made sure that it refers to nothing outside its folder.
    intra_op_threads, inter_op_threads : int
        0 shares the process's global pool; another number gives this session threads of its own.
    optimization_level : int
        ONNX Runtime's GraphOptimizationLevel: 0 none, 1 basic, 2 extended, 99 all.
    arena : bool
        Whether freed CPU memory is kept for the next run.
    device : str
        "cpu", or "cuda:N" for a GPU by its number. "cpu:staged" is the CPU in the way of a GPU, with tensors in memory
        that the session allocates and never in messages: what can be tested of a GPU where there is none.
    cuda_options, tensorrt_options : mapping of str to str
        Options of ONNX Runtime's providers by their names, but for device_id. TensorRT is tried first when its options,
        none of them perhaps, are given.
    session_config : mapping of str to str
        Entries of ONNX Runtime's session configuration.
    profile : path, optional
        Prefix of a file that says what every run did and on which thread; whole once the session is gone.
    optional_inputs : sequence of str
        Initializers that requests may replace: they become inputs, behind those that are needed.

    Raises
    ------
    DeviceError
        The device, its provider or its libraries are missing, an option is unknown there, or the model does not fit.
    SessionError
        The file is missing or broken, its opset is newer than the library, a tensor has a type or rank that the
        protocol cannot carry, or an optional input has no value of the model's.

    Notes
    -----
    Loading releases the GIL, so that a server goes on serving while a large model is read.
    """

    def __cinit__(self, path not None, *, int intra_op_threads=0, int inter_op_threads=0, int optimization_level=99,
                  bint arena=True, str device="cpu", cuda_options=None, tensorrt_options=None, session_config=None,
                  profile=None, optional_inputs=()):
        found = DEVICE.fullmatch(device)
        if found is None or (found["kind"] == "cpu" and found["ordinal"]) or (found["kind"] == "cuda" and not found[2]):
            raise SessionError(f"device is {device!r}; expected 'cpu' or 'cuda:' and a number")
        self.path = os.fspath(path)
        self.device = device
        if intra_op_threads < 0 or inter_op_threads < 0:
            raise SessionError("thread counts must be at least 0")
        self._keep = []
        cdef OrtSessionOptions* options = NULL
        try:
            self.core.runtime = open_runtime()
            raise_status(self.core.runtime.api, ort_CreateSessionOptions(self.core.runtime.api, &options))
            set_options(self.core.runtime.api, options, intra_op_threads, inter_op_threads, optimization_level, arena)
            set_entries(self.core.runtime.api, options, session_config or {}, profile)
            if found["kind"] == "cuda":
                append_providers(self.core.runtime.api, options, found["ordinal"], cuda_options, tensorrt_options)
            create_session(&self.core, os.fsencode(self.path), options)
            self.open_device(found)
            self.inputs = self.describe_tensors(True, list_optional(&self.core, optional_inputs))
            self.outputs = self.describe_tensors(False, [])
        except ProviderError as error:
            raise DeviceError(f"{device}: {error}") from None
        except RuntimeLibraryError as error:
            raise load_error(str(error), device, self.path) from None
        finally:
            if options != NULL:
                ort_ReleaseSessionOptions(self.core.runtime.api, options)
        self.core.batched_outputs = outputs_follow_batch(self.inputs, self.outputs)
        self.core.fixed_outputs = all(min(spec.shape, default=0) >= 0 for spec in self.outputs)

    def __dealloc__(self):
        close_device(&self.core.place)
        if self.core.handle != NULL:
            with nogil:  # a large model takes a while to free
                ort_ReleaseSession(self.core.runtime.api, self.core.handle)
        free(self.core.inputs)
        free(self.core.outputs)
        free(self.core.input_names)
        free(self.core.output_names)

    cdef int open_device(self, found) except -1:
        """Choose the memory that batches are gathered in."""
        if found["kind"] == "cuda":
            open_staging(&self.core.place, self.core.runtime, self.core.handle, "CudaPinned", int(found["ordinal"]))
        elif found["staged"]:
            open_staging(&self.core.place, self.core.runtime, self.core.handle, "Cpu", 0)
        else:
            open_host(&self.core.place, self.core.runtime)
        return 0

    def narrow_inputs(self, shapes):
        """Accept only inputs of these shapes, which a model's configuration may draw closer than its file does.

        Must come before the session is loaded into an engine.

        Parameters
        ----------
        shapes : sequence of tuple of int
            One for each input, in the model's order and rank; -1 leaves a dimension as the model has it.
        """
        cdef tensor_spec* spec
        for index, (shape, described) in enumerate(zip(shapes, self.inputs, strict=True)):
            if len(shape) != len(described.shape):
                raise ValueError(f"input '{described.name}' has rank {len(described.shape)}, given {list(shape)}")
            spec = &self.core.inputs[index]
            for axis, dimension in enumerate(shape):
                if dimension >= 0:
                    spec.dims[axis] = dimension
            count_inner_elements(spec)

    cdef tuple describe_tensors(self, bint is_input, object optional):
        """Read every input's (or output's) spec into the core; return them for Python.

        `optional` lists the numbers of initializers that are to be inputs too.
        """
        cdef size_t count = 0
        cdef ort_table api = self.core.runtime.api
        if is_input:
            raise_status(api, ort_SessionGetInputCount(api, self.core.handle, &count))
        else:
            raise_status(api, ort_SessionGetOutputCount(api, self.core.handle, &count))
        places = [(INPUT if is_input else OUTPUT, index) for index in range(count)]
        places += [(INITIALIZER, index) for index in optional]
        cdef tensor_spec* specs = <tensor_spec*> calloc(len(places) + 1, sizeof(tensor_spec))
        cdef const char** names = <const char**> calloc(len(places) + 1, sizeof(char*))
        if is_input:
            self.core.inputs, self.core.input_names, self.core.n_inputs = specs, names, len(places)
            self.core.n_optional = len(optional)
        else:
            self.core.outputs, self.core.output_names, self.core.n_outputs = specs, names, len(places)
        if specs == NULL or names == NULL:
            raise MemoryError
        described = []
        for place, (kind, index) in enumerate(places):
            name = read_name(&self.core, index, kind)
            self._keep.append(name)
            names[place] = specs[place].name = name
            specs[place].name_size = len(name)
            specs[place].is_optional = kind == INITIALIZER
            described.append(read_spec(&self.core, index, kind, &specs[place]))
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


cdef int set_options(ort_table api, OrtSessionOptions* options, int intra_op_threads, int inter_op_threads,
                     int optimization_level, bint arena) except -1:
    raise_status(api, ort_SetSessionGraphOptimizationLevel(api, options, optimization_level))
    # Its plan holds for one set of shapes; batch sizes vary, so it would be made again for each and kept.
    raise_status(api, ort_DisableMemPattern(api, options))
    if not arena:
        raise_status(api, ort_DisableCpuMemArena(api, options))
    if intra_op_threads == 0 and inter_op_threads == 0:
        raise_status(api, ort_DisablePerSessionThreads(api, options))
        return 0
    raise_status(api, ort_SetIntraOpNumThreads(api, options, intra_op_threads or 1))
    raise_status(api, ort_SetInterOpNumThreads(api, options, inter_op_threads or 1))
    raise_status(api, ort_AddSessionConfigEntry(api, options, "session.intra_op.allow_spinning", "0"))
    raise_status(api, ort_AddSessionConfigEntry(api, options, "session.inter_op.allow_spinning", "0"))
    return 0


cdef int set_entries(ort_table api, OrtSessionOptions* options, entries, profile) except -1:
    for name, value in entries.items():
        raise_status(api, ort_AddSessionConfigEntry(api, options, name.encode(), value.encode()))
    if profile is not None:
        raise_status(api, ort_EnableProfiling(api, options, os.fsencode(profile)))
    return 0


cdef int append_providers(ort_table api, OrtSessionOptions* options, ordinal, cuda_options, tensorrt_options) except -1:
    """Have a GPU run what its providers can, TensorRT's part first when it is asked for; the CPU runs the rest."""
    load_cuda_libraries("CUDA")
    if tensorrt_options is not None:
        load_cuda_libraries("TensorRT")
        append_tensorrt(api, options, {**tensorrt_options, "device_id": ordinal})
    append_cuda(api, options, {**(cuda_options or {}), "device_id": ordinal})
    return 0


def load_error(text, device, path):
    """Return the error for a model that ONNX Runtime did not load; for want of memory, with the model's size."""
    cdef bytes encoded = text.encode()
    if not is_out_of_memory(encoded):
        return SessionError(text)
    return DeviceError(f"the model does not fit on {device}: its file has {os.path.getsize(path)} bytes; {text}")


cdef int create_session(session_core* core, bytes path, OrtSessionOptions* options) except -1:
    cdef const char* encoded = path
    cdef OrtStatus* status
    with nogil:
        status = ort_CreateSession(core.runtime.api, core.runtime.env, encoded, options, &core.handle)
    return raise_status(core.runtime.api, status)


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


cdef int bind_tensor(session_core* core, const tensor_spec* spec, void* data, size_t size, const int64_t* shape,
                     OrtValue** value, failure* error) noexcept nogil:
    """Make an OrtValue over `size` bytes at `data`, which must outlive it. 0, or -1 with `error` set."""
    return check_status(core.runtime.api, ort_CreateTensorWithDataAsOrtValue(
        core.runtime.api, core.place.memory, data, size, shape, spec.rank, spec.onnx_type, value), error)


cdef int create_strings(session_core* core, const int64_t* shape, int32_t rank, OrtValue** value,
                        failure* error) noexcept nogil:
    """Make a string tensor that owns its elements, all empty. 0, or -1 with `error` set."""
    return check_status(core.runtime.api, ort_CreateTensorAsOrtValue(
        core.runtime.api, core.runtime.allocator, shape, rank, ONNX_STRING, value), error)


cdef int64_t fill_strings(session_core* core, OrtValue* value, int64_t first, const uint8_t* content, size_t size,
                          failure* error) noexcept nogil:
    """Copy length-prefixed strings, checked before, into the elements from `first` on; return how many, or -1."""
    cdef size_t position = 0
    cdef int64_t element = first
    cdef uint32_t length
    cdef char* buffer
    while position < size:
        memcpy(&length, content + position, 4)
        if check_status(core.runtime.api, ort_GetResizedStringTensorElementBuffer(
                core.runtime.api, value, element, length, &buffer), error) != 0:
            return -1
        memcpy(buffer, content + position + 4, length)
        position += 4 + <size_t> length
        element += 1
    return element - first


cdef int run_session(session_core* core, OrtValue** inputs, OrtValue** outputs, failure* error) noexcept nogil:
    """Run once. Outputs that are NULL are allocated by ONNX Runtime. 0, or -1 with `error` set."""
    if core.n_optional > 0:
        return run_given(core, inputs, outputs, error)
    return check_status(core.runtime.api, ort_Run(
        core.runtime.api, core.handle, NULL, core.input_names, <const OrtValue* const*> inputs, core.n_inputs,
        core.output_names, core.n_outputs, outputs), error)


cdef int run_given(session_core* core, OrtValue** inputs, OrtValue** outputs, failure* error) noexcept nogil:
    """Run with the inputs that are not NULL, by their names."""
    cdef const void** room = <const void**> malloc(2 * <size_t> core.n_inputs * sizeof(void*))
    cdef const void** values = room + core.n_inputs
    cdef size_t given = 0
    cdef int32_t index
    cdef int failed
    if room == NULL:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for the names of %d inputs", core.n_inputs)
        return -1
    for index in range(core.n_inputs):
        if inputs[index] != NULL:
            room[given] = core.input_names[index]
            values[given] = inputs[index]
            given += 1
    failed = check_status(core.runtime.api, ort_Run(
        core.runtime.api, core.handle, NULL, <const char**> room, <const OrtValue* const*> values, given,
        core.output_names, core.n_outputs, outputs), error)
    free(room)
    return failed


cdef int describe_value(session_core* core, OrtValue* value, tensor_data* out, failure* error) noexcept nogil:
    """Read the shape and element count of a tensor. 0, or -1 with `error` set."""
    cdef OrtTensorTypeAndShapeInfo* info = NULL
    cdef ort_table api = core.runtime.api
    cdef size_t rank = 0, elements = 0
    if check_status(api, ort_GetTensorTypeAndShape(api, value, &info), error) != 0:
        return -1
    cdef int failed = check_status(api, ort_GetDimensionsCount(api, info, &rank), error)
    if failed == 0 and rank > MAX_RANK:
        error.code = INTERNAL
        snprintf(error.text, FAILURE_TEXT_BYTES, "the model gave a tensor of rank %zu; at most %d is served", rank, MAX_RANK)
        failed = -1
    if failed == 0:
        failed = check_status(api, ort_GetDimensions(api, info, out.shape, rank), error)
    if failed == 0:
        failed = check_status(api, ort_GetTensorShapeElementCount(api, info, &elements), error)
    ort_ReleaseTensorTypeAndShapeInfo(api, info)
    out.rank = rank
    out.elements = elements
    return failed


cdef int read_numbers(session_core* core, OrtValue* value, size_t element_size, tensor_data* out,
                      failure* error) noexcept nogil:
    """Point `out`, already described, at a numeric tensor's own memory, valid until the value is released."""
    cdef void* data = NULL
    out.size = <size_t> out.elements * element_size
    out.data = NULL
    if out.size == 0:
        return 0
    if check_status(core.runtime.api, ort_GetTensorMutableData(core.runtime.api, value, &data), error) != 0:
        return -1
    out.data = <const uint8_t*> data
    return 0


cdef int read_strings(session_core* core, OrtValue* value, int64_t elements, uint8_t** buffer, size_t* capacity,
                      size_t** offsets, size_t* offsets_capacity, failure* error) noexcept nogil:
    """Lay a string tensor out with 4-byte little-endian length prefixes.

    `offsets[i]` is where element i's prefix starts, `offsets[elements]` the end. Both buffers grow as needed and stay
    the caller's to free.
    """
    cdef ort_table api = core.runtime.api
    cdef size_t characters = 0, total
    if check_status(api, ort_GetStringTensorDataLength(api, value, &characters), error) != 0:
        return -1
    total = characters + 4 * <size_t> elements
    if grow(<void**> buffer, capacity, total) != 0 or grow(
            <void**> offsets, offsets_capacity, (<size_t> elements + 1) * sizeof(size_t)) != 0:
        error.code = EXHAUSTED
        snprintf(error.text, FAILURE_TEXT_BYTES, "no memory for %zu bytes of strings", total)
        return -1
    # The characters go to the end of the buffer and are moved forward one by one as the prefixes are put in.
    cdef uint8_t* source = buffer[0] + 4 * elements
    if elements > 0 and check_status(api, ort_GetStringTensorContent(
            api, value, source, characters, offsets[0], elements), error) != 0:
        return -1
    spread_strings(buffer[0], source, characters, offsets[0], elements)
    return 0


cdef void spread_strings(uint8_t* target, uint8_t* source, size_t characters, size_t* offsets,
                         int64_t elements) noexcept nogil:
    """Put a length prefix before each string; the gap between target and source shrinks by 4 with each."""
    cdef size_t position = 0, start, end
    cdef uint32_t length
    cdef int64_t element
    for element in range(elements):
        start = offsets[element]
        end = offsets[element + 1] if element + 1 < elements else characters
        length = <uint32_t> (end - start)
        offsets[element] = position
        memcpy(target + position, &length, 4)
        memmove(target + position + 4, source + start, length)
        position += 4 + <size_t> length
    offsets[elements] = position


cdef int grow(void** buffer, size_t* capacity, size_t needed) noexcept nogil:
    cdef void* larger
    if needed <= capacity[0] and buffer[0] != NULL:
        return 0
    larger = realloc(buffer[0], needed + 64)
    if larger == NULL:
        return -1
    buffer[0] = larger
    capacity[0] = needed + 64
    return 0


cdef void release_values(session_core* core, OrtValue** values, int32_t count) noexcept nogil:
    """Release every value and set it to NULL."""
    cdef int32_t index
    for index in range(count):
        if values[index] != NULL:
            ort_ReleaseValue(core.runtime.api, values[index])
            values[index] = NULL
