"""Finds for each ensemble the loaded versions that its steps run on."""

from libc.stdint cimport int64_t


cdef dict resolve_ensembles(dict versions)
cdef dict number_plans(dict plans, dict known, int64_t* latest)
