"""Measurements of sluice: each module that has a `measure` is one of them; `python -m bench` runs them.

How to read the rows is in docs/measuring.md.
"""
