"""One ONNX Runtime session through the C API: a loaded model, and running it without the GIL.

Runs of one session may overlap on CPU: ONNX Runtime's Run is thread-safe there and shares the weights.
"""

import os
import re

from cython cimport final, no_gc_clear
from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc

from kernels.cuda_runtime cimport destroy_stream
from kernels.device cimport close_device, open_gpu_memory, open_host, open_staging
from kernels.failure cimport FAILURE_TEXT_BYTES
from kernels.ort cimport *
from kernels.recording cimport close_recordings, find_recording, list_places, open_recordings
from kernels.runtime cimport check_status, is_out_of_memory, open_runtime, raise_status
from kernels.session_options cimport append_providers, set_entries, set_options
from kernels.status cimport EXHAUSTED
from kernels.tensor_specs cimport can_record, describe_tensors, list_optional

from kernels.cuda_runtime import CudaError, open_cuda
from kernels.providers import ProviderError
from kernels.runtime import RuntimeLibraryError
from kernels.session_errors import DeviceError, SessionError
from kernels.tensor_specs import TensorSpec, outputs_follow_batch

# The CPU, a GPU by its number, and the CPU as if it were a GPU: its tensors in memory that the session allocates.
DEVICE = re.compile(r"(?P<kind>cpu|cuda)(:(?P<ordinal>[0-9]{1,4}))?"
                    r"|(?P<staged>cpu:staged)(:(?P<stands_for>[0-9]{1,4}))?")


@final
@no_gc_clear  # what is left is freed by CUDA's runtime
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
        "cpu:staged:N" stands for GPU N, and takes its memory for the process's own, which it is in such tests alone.
    cuda_options, tensorrt_options : mapping of str to str
        Options of ONNX Runtime's providers by their names, but for device_id. TensorRT is tried first when its options,
        none of them perhaps, are given.
    session_config : mapping of str to str
        Entries of ONNX Runtime's session configuration.
    profile : path, optional
        Prefix of a file that says what every run did and on which thread; whole once the session is gone.
    optional_inputs : sequence of str
        Initializers that requests may replace: they become inputs, behind those that are needed.
    records : bool
        Whether record_batches is to come: the GPU then runs on a stream of the session's own, and records CUDA graphs.

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
                  profile=None, optional_inputs=(), bint records=False):
        found = DEVICE.fullmatch(device)
        if found is None or (found["kind"] == "cpu" and found["ordinal"]) or (found["kind"] == "cuda" and not found[2]):
            raise SessionError(f"device is {device!r}; expected 'cpu' or 'cuda:' and a number")
        self.path = os.fspath(path)
        self.device = device
        if intra_op_threads < 0 or inter_op_threads < 0:
            raise SessionError("thread counts must be at least 0")
        self._keep = []
        self._records = records
        self.recorded_sizes = ()
        cdef OrtSessionOptions* options = NULL
        try:
            self.core.runtime = open_runtime()
            raise_status(self.core.runtime.api, ort_CreateSessionOptions(self.core.runtime.api, &options))
            set_options(self.core.runtime.api, options, intra_op_threads, inter_op_threads, optimization_level, arena)
            set_entries(self.core.runtime.api, options, session_config or {}, profile)
            if found["kind"] == "cuda":
                if records:
                    cuda_options = {**(cuda_options or {}), **self.make_stream(int(found["ordinal"]))}
                append_providers(self.core.runtime.api, options, found["ordinal"], cuda_options, tensorrt_options)
            create_session(&self.core, os.fsencode(self.path), options)
            self.open_device(found)
            self.inputs = describe_tensors(&self.core, True, list_optional(&self.core, optional_inputs), self._keep)
            self.outputs = describe_tensors(&self.core, False, [], self._keep)
        except (ProviderError, CudaError) as error:
            raise DeviceError(f"{device}: {error}") from None
        except RuntimeLibraryError as error:
            raise load_error(str(error), device, self.path) from None
        finally:
            if options != NULL:
                ort_ReleaseSessionOptions(self.core.runtime.api, options)
        self.core.batched_outputs = outputs_follow_batch(self.inputs, self.outputs)
        self.core.fixed_outputs = all(min(spec.shape, default=0) >= 0 for spec in self.outputs)

    def __dealloc__(self):
        close_recordings(&self.core)
        close_device(&self.core.place)
        if self.core.handle != NULL:
            with nogil:  # a large model takes a while to free
                ort_ReleaseSession(self.core.runtime.api, self.core.handle)
        if self.core.place.stream != NULL:
            destroy_stream(self.core.place.cuda, self.core.place.gpu, self.core.place.stream)
        free(self.core.inputs)
        free(self.core.outputs)
        free(self.core.input_names)
        free(self.core.output_names)

    cdef dict make_stream(self, int gpu):
        """Make the session's stream; the options by which the CUDA provider takes it and records."""
        self._cuda = open_cuda()
        self.core.place.stream = self._cuda.create_stream(gpu)
        self.core.place.cuda, self.core.place.gpu = &self._cuda.table, gpu
        address = <size_t> self.core.place.stream
        return {"enable_cuda_graph": "1", "has_user_compute_stream": "1", "user_compute_stream": str(address)}

    cdef int open_device(self, found) except -1:
        """Choose the memory that batches are gathered in."""
        if found["kind"] == "cuda":
            open_staging(&self.core.place, self.core.runtime, self.core.handle, "CudaPinned", int(found["ordinal"]))
            open_gpu_memory(&self.core.place, "Cuda", int(found["ordinal"]), int(found["ordinal"]))
        elif found["staged"]:
            open_staging(&self.core.place, self.core.runtime, self.core.handle, "Cpu", 0)
            if found["stands_for"]:
                open_gpu_memory(&self.core.place, "Cpu", 0, int(found["stands_for"]))
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

    def record_batches(self, sizes):
        """Run batches in these sizes, each filled up to the next, and have the device record and replay their runs.

        Must come after narrow_inputs and before the session is loaded into an engine, where it needs a lane. A batch
        of more rows than the largest size runs as it is.

        Parameters
        ----------
        sizes : sequence of int
            Rows, ascending.

        Raises
        ------
        SessionError
            The session was not opened for it, or an input or output has no fixed size but for the batch.
        DeviceError
            The device has no memory for batches of the largest size.
        """
        if not self._records or self.core.place.gpu_memory == NULL or self.recorded_sizes:
            raise SessionError(f"the session on {self.device} was not opened to record its runs, or does so already")
        if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
            raise ValueError(f"expected batch sizes of at least 1 that ascend, given {list(sizes)}")
        if not can_record(&self.core):
            raise SessionError("runs can be recorded where all inputs and outputs are numbers, of which no dimension but "
                               "the batch is open, and none is optional")
        try:
            open_recordings(&self.core, tuple(sizes))
        except RuntimeLibraryError as error:
            raise load_error(str(error), self.device, self.path) from None
        self.recorded_sizes = tuple(sizes)

    def recorded_places(self, int64_t rows):
        """Return where inputs and outputs of a batch of so many rows lie on the device, as two tuples of addresses.

        For tests; None for a batch that is not recorded.
        """
        if find_recording(&self.core, rows) == NULL:
            return None
        return list_places(&self.core, find_recording(&self.core, rows))


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


cdef int run_session(session_core* core, OrtValue** inputs, OrtValue** outputs, failure* error) noexcept nogil:
    """Run once. Outputs that are NULL are allocated by ONNX Runtime. 0, or -1 with `error` set."""
    if core.n_optional > 0:
        return run_given(core, inputs, outputs, error)
    return check_status(core.runtime.api, ort_Run(
        core.runtime.api, core.handle, core.run_options, core.input_names, <const OrtValue* const*> inputs,
        core.n_inputs, core.output_names, core.n_outputs, outputs), error)


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
        core.runtime.api, core.handle, core.run_options, <const char**> room, <const OrtValue* const*> values, given,
        core.output_names, core.n_outputs, outputs), error)
    free(room)
    return failed
