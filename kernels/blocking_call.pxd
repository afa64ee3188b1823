"""One request whose caller waits for it."""

from libc.stdint cimport int64_t

from kernels.batcher cimport batcher
from kernels.dispatch cimport engine_core

cdef bytes call_and_wait(engine_core* core, batcher* target, bytes message, bytes version_hint, int64_t timeout_us)
