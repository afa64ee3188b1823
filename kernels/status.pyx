"""Outcome codes of the data plane, visible to Python as ints of this module."""

# What a caller hears of an error that nobody foresaw; the detail is for the log alone.
UNFORESEEN = "internal error; the server's log has the detail"

cdef bytes _unforeseen = UNFORESEEN.encode()
UNFORESEEN_TEXT = _unforeseen
