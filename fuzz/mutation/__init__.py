"""How new inputs are made of old ones: as bytes, and along the structure that each target reads.

A mutator has `mutate(data, other, random)`, which changes one input a little, with parts of the other one perhaps, and
`split(data)`, which cuts an input into pieces of which some may be left out.
"""
