"""ONNX Runtime's options of a session that is about to be made."""

from kernels.ort cimport OrtSessionOptions, ort_table

cdef int set_options(ort_table api, OrtSessionOptions* options, int intra_op_threads, int inter_op_threads,
                     int optimization_level, bint arena) except -1
cdef int set_entries(ort_table api, OrtSessionOptions* options, entries, profile) except -1
cdef int append_providers(ort_table api, OrtSessionOptions* options, ordinal, cuda_options, tensorrt_options) except -1
