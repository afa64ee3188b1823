"""Sets ONNX Runtime's options of a session that is about to be made."""

import os

from kernels.ort cimport *
from kernels.providers cimport append_cuda, append_tensorrt
from kernels.runtime cimport raise_status

from kernels.cuda_libraries import load_cuda_libraries


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
