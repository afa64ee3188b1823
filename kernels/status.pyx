"""Outcome codes of the data plane, visible to Python as ints of this module."""
