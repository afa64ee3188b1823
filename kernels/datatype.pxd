"""Datatypes of tensors: one table of wire name, ONNX element type and size.

The codes are the numbers of `inference.DataType`, so that a model configuration needs no second table.
"""

from libc.stdint cimport uint8_t

cdef enum:
    DT_UNKNOWN = 0
    DT_BOOL = 1
    DT_UINT8 = 2
    DT_UINT16 = 3
    DT_UINT32 = 4
    DT_UINT64 = 5
    DT_INT8 = 6
    DT_INT16 = 7
    DT_INT32 = 8
    DT_INT64 = 9
    DT_FP16 = 10
    DT_FP32 = 11
    DT_FP64 = 12
    DT_BYTES = 13
    DT_BF16 = 14

cdef enum:
    DATATYPE_COUNT = 15  # codes run from 0 to DATATYPE_COUNT - 1


cdef int find_datatype(const uint8_t* name, size_t size) noexcept nogil
cdef const char* datatype_name(int datatype) noexcept nogil
cdef size_t datatype_size(int datatype) noexcept nogil
cdef int datatype_to_onnx(int datatype) noexcept nogil
cdef int datatype_from_onnx(int onnx_type) noexcept nogil
