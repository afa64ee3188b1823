"""ONNX Runtime's execution providers for GPUs: which of them a library has, and adding one to a session's options.

A provider is a library of its own, which is opened when it is added: a driver or a CUDA library that is missing is
found out then.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from kernels.ort cimport *
from kernels.runtime cimport open_runtime, ort_runtime, raise_status

from kernels.runtime import RuntimeLibraryError

cdef enum:
    NO_OPTIONS_BYTES = 8192   # more than any provider's options have


class ProviderError(RuntimeLibraryError):
    """A provider is not in the library, cannot be opened, or does not know an option; the text is ONNX Runtime's."""


def available_providers():
    """Return the names of the providers that the installed library was built with, whether or not they can be opened."""
    cdef ort_runtime* runtime = open_runtime()
    cdef char** names = NULL
    cdef int count = 0
    raise_status(runtime.api, ort_GetAvailableProviders(runtime.api, &names, &count))
    found = [names[index].decode() for index in range(count)]
    raise_status(runtime.api, ort_ReleaseAvailableProviders(runtime.api, names, count))
    return found


cdef int append_cuda(ort_table api, OrtSessionOptions* options, given) except -1:
    """Add the CUDA provider, with options by their names."""
    cdef OrtCUDAProviderOptionsV2* provider = NULL
    cdef option_list listed = make_list(given)
    try:
        raise_provider(api, ort_CreateCUDAProviderOptions(api, &provider))
        raise_provider(api, ort_UpdateCUDAProviderOptions(api, provider, listed.keys, listed.values, listed.count))
        raise_provider(api, ort_SessionOptionsAppendExecutionProvider_CUDA_V2(api, options, provider))
    finally:
        free_list(&listed)
        if provider != NULL:
            ort_ReleaseCUDAProviderOptions(api, provider)
    return 0


cdef int append_tensorrt(ort_table api, OrtSessionOptions* options, given) except -1:
    """Add the TensorRT provider, with options by their names."""
    cdef OrtTensorRTProviderOptionsV2* provider = NULL
    cdef option_list listed = make_list(given)
    try:
        raise_provider(api, ort_CreateTensorRTProviderOptions(api, &provider))
        raise_provider(api, ort_UpdateTensorRTProviderOptions(api, provider, listed.keys, listed.values, listed.count))
        raise_provider(api, ort_SessionOptionsAppendExecutionProvider_TensorRT_V2(api, options, provider))
    finally:
        free_list(&listed)
        if provider != NULL:
            ort_ReleaseTensorRTProviderOptions(api, provider)
    return 0


def refusals_of_absent_providers():
    """Return {slot: what a library without GPU providers answers there}: proof that the slots were counted right.

    For tests. With a provider in the library its slots are left out, since they would be given nothing to work on.
    """
    cdef ort_runtime* runtime = open_runtime()
    cdef OrtSessionOptions* options = NULL
    raise_status(runtime.api, ort_CreateSessionOptions(runtime.api, &options))
    built_with = available_providers()
    said = {}
    if "CUDAExecutionProvider" not in built_with:
        said |= refusals_of_cuda(runtime.api, options)
    if "TensorrtExecutionProvider" not in built_with:
        said |= refusals_of_tensorrt(runtime.api, options)
    ort_ReleaseSessionOptions(runtime.api, options)
    return said


cdef dict refusals_of_cuda(ort_table api, OrtSessionOptions* options):
    cdef OrtCUDAProviderOptionsV2* made = NULL
    cdef char[NO_OPTIONS_BYTES] zeros
    memset(zeros, 0, NO_OPTIONS_BYTES)
    cdef OrtCUDAProviderOptionsV2* provider = <OrtCUDAProviderOptionsV2*> zeros
    said = {
        "CreateCUDAProviderOptions": take_text(api, ort_CreateCUDAProviderOptions(api, &made)),
        "UpdateCUDAProviderOptions": take_text(api, ort_UpdateCUDAProviderOptions(api, provider, NULL, NULL, 0)),
        "SessionOptionsAppendExecutionProvider_CUDA_V2": take_text(
            api, ort_SessionOptionsAppendExecutionProvider_CUDA_V2(api, options, provider)),
    }
    ort_ReleaseCUDAProviderOptions(api, made)
    return said


cdef dict refusals_of_tensorrt(ort_table api, OrtSessionOptions* options):
    cdef OrtTensorRTProviderOptionsV2* made = NULL
    cdef char[NO_OPTIONS_BYTES] zeros
    memset(zeros, 0, NO_OPTIONS_BYTES)
    cdef OrtTensorRTProviderOptionsV2* provider = <OrtTensorRTProviderOptionsV2*> zeros
    said = {
        "CreateTensorRTProviderOptions": take_text(api, ort_CreateTensorRTProviderOptions(api, &made)),
        "UpdateTensorRTProviderOptions": take_text(api, ort_UpdateTensorRTProviderOptions(api, provider, NULL, NULL, 0)),
        "SessionOptionsAppendExecutionProvider_TensorRT_V2": take_text(
            api, ort_SessionOptionsAppendExecutionProvider_TensorRT_V2(api, options, provider)),
    }
    ort_ReleaseTensorRTProviderOptions(api, made)
    return said


cdef object take_text(ort_table api, OrtStatus* status):
    """Return a status's text, None for a success; it is freed."""
    if status == NULL:
        return None
    text = ort_GetErrorMessage(api, status).decode(errors="replace")
    ort_ReleaseStatus(api, status)
    return text


cdef int raise_provider(ort_table api, OrtStatus* status) except -1:
    try:
        return raise_status(api, status)
    except RuntimeLibraryError as error:
        raise ProviderError(str(error)) from None


# ---- options as C strings


cdef struct option_list:
    const char** keys        # of bytes objects that the list below keeps
    const char** values
    size_t count
    void* kept


cdef option_list make_list(given) except *:
    """Return options as two arrays of C strings; free_list ends them."""
    cdef option_list made
    cdef bytes key, value
    kept = [(str(name).encode(), str(option).encode()) for name, option in given.items()]
    made.count = len(kept)
    made.keys = <const char**> malloc((2 * made.count + 1) * sizeof(char*))
    if made.keys == NULL:
        raise MemoryError
    made.values = made.keys + made.count
    for index, (key, value) in enumerate(kept):
        made.keys[index] = key
        made.values[index] = value
    made.kept = <void*> kept
    Py_INCREF(kept)
    return made


cdef void free_list(option_list* used) noexcept:
    free(used.keys)
    Py_DECREF(<object> used.kept)
