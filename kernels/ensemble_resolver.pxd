"""Finds for each ensemble the loaded versions that its steps run on."""

cdef dict resolve_ensembles(dict versions)
