"""Other model servers under the same load, each from PyPI into an environment of its own: `python -m bench.peers NAME`.

`mlserver` is MLServer. `triton` is the Triton server binary that the wheel of nvidia-pytriton carries, with its Python
backend, the only one in there. Both run the perceptron of the other measurements in NumPy, so that what differs is the
server; sluice, measured in turn with them, runs it in ONNX Runtime. The environments are made under build/peers on the
first run, with the Python that runs this (tried with 3.11; about 350 MB each).
"""
