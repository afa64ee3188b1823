"""Having a session use a GPU: ONNX Runtime's execution providers and their options by name."""

from kernels.ort cimport OrtSessionOptions, ort_table


cdef int append_cuda(ort_table api, OrtSessionOptions* options, given) except -1
cdef int append_tensorrt(ort_table api, OrtSessionOptions* options, given) except -1
