"""Requests with a key: where they meet the book of answers, and the runs that it has made for them."""

from kernels.dispatch cimport engine_core
from kernels.request cimport request

cdef void submit_keyed(engine_core* core, request* caller) noexcept nogil
