"""Ensembles for the kernels' tests: graphs in few words, and the models that they are made of."""

import onnx_models

from kernels.ensemble import Ensemble, EnsembleStep
from kernels.session import TensorSpec


def spec(name, *shape, datatype="FP32"):
    """A tensor as callers of an ensemble see it."""
    return TensorSpec(name, datatype, shape, ("",) * len(shape))


def step(model, inputs, outputs, version=-1):
    """A step that runs a model on tensors: {the model's name: the ensemble's}."""
    return EnsembleStep(model, version, inputs, outputs)


def echo(source, target, model="same"):
    """A step of a model from `input` to `output`."""
    return step(model, {"input": source}, {"output": target})


def chain(*models, source="input", target="output"):
    """Steps of models from `input` to `output`, one after the other."""
    tensors = [source, *(f"between_{index}" for index in range(1, len(models))), target]
    return [echo(tensors[index], tensors[index + 1], model) for index, model in enumerate(models)]


def load_ensemble(engine, name, inputs, outputs, steps, *, version=1, optional=(), labels=None, **options):
    """Load an ensemble into an engine."""
    graph = Ensemble(inputs, outputs, steps, optional=optional, labels=labels)
    made = engine.prepare_ensemble(name, version, graph, **options)
    engine.retire(engine.exchange({(name, version): made}))


def load_chain(engine, *models, name="chain", width=4, max_batch_size=8, **options):
    """An ensemble `chain` of models from `input` to `output` of as many columns."""
    shape = (-1, width)
    load_ensemble(
        engine,
        name,
        [spec("input", *shape)],
        [spec("output", *shape)],
        chain(*models),
        max_batch_size=max_batch_size,
        **options,
    )


def load_parts(load, max_batch_size=8, **options):
    """The models `same` and `sums` of four columns."""
    load(onnx_models.identity(), "same", max_batch_size=max_batch_size, **options)
    load(onnx_models.add_and_subtract(4), "sums", max_batch_size=max_batch_size, **options)
