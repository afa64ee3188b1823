"""The check of a decoded request against what its call's caller may ask for."""

from kernels.request cimport request

cdef int check_admission(request* asked) noexcept nogil
