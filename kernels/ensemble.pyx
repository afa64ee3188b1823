"""Checks the graph of an ensemble as far as that goes without its models, and puts its steps into an order."""

from collections import namedtuple

from cython cimport final
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from kernels.datatype cimport datatype_to_onnx, find_datatype
from kernels.interface cimport Labels
from kernels.session cimport MAX_RANK, count_inner_elements, tensor_spec
from kernels.signature cimport signature

EnsembleStep = namedtuple("EnsembleStep", "model version inputs outputs")
EnsembleStep.__doc__ = """One step: the model's name, its version or -1 for the highest that serves, and the ensemble's
tensor for each input and each output, by the model's names."""


class EnsembleError(Exception):
    """An ensemble cannot be run as it is configured, or with the models that there are; the text names the step."""


@final
cdef class Ensemble:
    """A graph of models, to be loaded as a model.

    Parameters
    ----------
    inputs, outputs : sequence of TensorSpec
        What callers give and get, the batch first where there is one.
    steps : sequence of EnsembleStep
        In any order.
    optional : sequence of str
        Inputs that requests may leave out.
    labels : sequence of list of bytes, or None
        For each output the names of its classes; with an empty list it has those of the step that makes it.

    Raises
    ------
    EnsembleError
        A tensor is made twice or by nobody, or steps wait for each other.
    """

    def __cinit__(self, inputs, outputs, steps, *, optional=(), labels=None):
        self._keep = []
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.steps = order_steps(self.inputs, self.outputs, tuple(steps))
        self.core.n_steps = len(self.steps)
        self.core.n_inputs = sum(len(step.inputs) for step in self.steps)
        self.core.n_outputs = sum(len(step.outputs) for step in self.steps)
        self.seen.n_inputs, self.seen.n_outputs = len(self.inputs), len(self.outputs)
        self.seen.inputs = self.describe_tensors(self.inputs, set(optional))
        self.seen.outputs = self.describe_tensors(self.outputs, ())
        if labels is not None:
            self.labels = Labels([given for given, _ in zip(labels, self.outputs, strict=True)])

    def __dealloc__(self):
        # No run is under way: the engine has retired the ensemble.
        cdef void* idle = self.core.idle_runs
        cdef void* following
        while idle != NULL:
            following = (<void**> idle)[0]
            self.core.free_run(idle)
            idle = following
        free(self.seen.inputs)
        free(self.seen.outputs)

    cdef void describe(self, signature* accepted) noexcept:
        """Say what callers see; the batch is left to say."""
        memset(accepted, 0, sizeof(signature))
        accepted.core = &self.seen
        accepted.reads_inputs = True
        accepted.inputs = self.seen.inputs
        accepted.outputs = self.seen.outputs
        accepted.bound = self.seen.inputs
        accepted.labels = self.labels.lists if self.labels is not None else NULL

    cdef tensor_spec* describe_tensors(self, tuple specs, object optional) except NULL:
        """Return the specs as kernels have them; the caller keeps the array."""
        cdef tensor_spec* made = <tensor_spec*> calloc(len(specs) + 1, sizeof(tensor_spec))
        cdef bytes name, datatype
        if made == NULL:
            raise MemoryError
        for index, spec in enumerate(specs):
            if len(spec.shape) > MAX_RANK:
                free(made)
                raise EnsembleError(f"tensor {spec.name!r} has more than {MAX_RANK} dimensions")
            name, datatype = spec.name.encode(), spec.datatype.encode()
            self._keep.append(name)
            made[index].name, made[index].name_size = name, len(name)
            made[index].datatype = find_datatype(datatype, len(datatype))
            made[index].onnx_type = datatype_to_onnx(made[index].datatype)
            made[index].rank = len(spec.shape)
            for axis, dimension in enumerate(spec.shape):
                made[index].dims[axis] = dimension
            made[index].is_optional = spec.name in optional
            count_inner_elements(&made[index])
        return made


def order_steps(inputs, outputs, steps):
    """Return the steps so that each comes after those whose tensors it reads; EnsembleError where that cannot be."""
    makers = find_makers(inputs, steps)
    for spec in outputs:
        if makers.get(spec.name) is None:
            raise EnsembleError(f"output {spec.name!r} is made by no step")
    for step in steps:
        for tensor in step.inputs.values():
            if tensor not in makers:
                raise EnsembleError(f"step {step.model!r} reads tensor {tensor!r}, which nobody makes")
    ordered, made, waiting = [], {spec.name for spec in inputs}, list(steps)
    while waiting:
        ready = [step for step in waiting if made.issuperset(step.inputs.values())]
        if not ready:
            names = ", ".join(repr(step.model) for step in waiting)
            raise EnsembleError(f"steps wait for each other's tensors: {names}")
        ordered += ready
        waiting = [step for step in waiting if step not in ready]
        made.update(tensor for step in ready for tensor in step.outputs.values())
    return tuple(ordered)


def find_makers(inputs, steps):
    """Return {tensor: the step that makes it, None for an input}; EnsembleError for one that is made twice."""
    makers = {spec.name: None for spec in inputs}
    if not steps:
        raise EnsembleError("there is no step")
    for step in steps:
        if not step.outputs:
            raise EnsembleError(f"step {step.model!r} makes no tensor")
        for tensor in step.outputs.values():
            if tensor in makers:
                other = makers[tensor]
                first = f"step {other.model!r}" if other else "the ensemble's callers"
                raise EnsembleError(f"tensor {tensor!r} is made twice, by {first} and by step {step.model!r}")
            makers[tensor] = step
    return makers
