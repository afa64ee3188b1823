"""Makes the small ONNX models that tests and benchmarks serve; none is committed.

Weights come from a fixed seed. Every function returns an ``onnx.ModelProto``; `save` puts one into a model repository.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

# By the datatype's name on the wire.
ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def _model(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializer=list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _value(name, shape, element_type=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element_type, shape)


def tiny(hidden=64, seed=7, outputs=4):
    """A 16-64-4 perceptron: FP32 ``input`` [batch, 16] to FP32 ``output`` [batch, 4], or as many outputs."""
    generator = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (16, hidden)), ("b1", (hidden,)), ("w2", (hidden, outputs)), ("b2", (outputs,)))
    ]
    nodes = [
        helper.make_node("Gemm", ["input", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["output"]),
    ]
    return _model(nodes, [_value("input", ["batch", 16])], [_value("output", ["batch", outputs])], weights)


def identity(element_type=TensorProto.FLOAT, shape=("batch", 4)):
    """``input`` to ``output``, unchanged."""
    node = helper.make_node("Identity", ["input"], ["output"])
    return _model([node], [_value("input", shape, element_type)], [_value("output", shape, element_type)])


def widener(width=16384):
    """FP32 ``input`` [batch, 1] to as many copies of it in a row, FP32 ``output`` [batch, width]."""
    ones = numpy_helper.from_array(np.ones((1, width), dtype=np.float32), "ones")
    node = helper.make_node("MatMul", ["input", "ones"], ["output"])
    return _model([node], [_value("input", ["batch", 1])], [_value("output", ["batch", width])], [ones])


def add_and_subtract(columns=3):
    """FP32 ``a`` and ``b`` [batch, columns] to ``sum`` and ``difference``."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    shape = ["batch", columns]
    return _model(nodes, [_value("a", shape), _value("b", shape)], [_value("sum", shape), _value("difference", shape)])


def scaler(scale=(2.0,), open_scale=False):
    """FP32 ``input`` [size] times ``scale``, an input that the model has a value for."""
    value = numpy_helper.from_array(np.array(scale, dtype=np.float32), "scale")
    shape = ["scales"] if open_scale else list(value.dims)
    node = helper.make_node("Mul", ["input", "scale"], ["output"])
    inputs = [_value("input", ["size"]), _value("scale", shape)]
    return _model([node], inputs, [_value("output", ["size"])], [value])


def column_sums():
    """FP32 ``input`` [rows, columns] to its sum over rows [columns]: the first dimension is no batch."""
    axes = numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")
    node = helper.make_node("ReduceSum", ["input", "axes"], ["output"], keepdims=0)
    return _model([node], [_value("input", ["rows", "columns"])], [_value("output", ["columns"])], [axes])


def scalar_doubler():
    """FP32 ``input`` of rank 0 to its double."""
    node = helper.make_node("Add", ["input", "input"], ["output"])
    return _model([node], [_value("input", [])], [_value("output", [])])


def picker(rows=10):
    """INT64 ``index`` [batch] to FP32 ``output`` [batch]: rows of a table, of 10; another index fails in the run."""
    table = numpy_helper.from_array(np.arange(rows, dtype=np.float32) * 1.5, "table")
    node = helper.make_node("Gather", ["table", "index"], ["output"])
    return _model([node], [_value("index", ["batch"], TensorProto.INT64)], [_value("output", ["batch"])], [table])


def dice(columns=4):
    """input FP32[batch, columns] to output of the same shape, of other numbers at every run."""
    node = helper.make_node("RandomUniformLike", ["input"], ["output"])
    shape = ("batch", columns)
    return _model([node], [_value("input", shape)], [_value("output", shape)])


def ones_counter():
    """INT64 ``size`` [1] to the sum of as many ones, FP32 ``output`` [1]: a request says what memory it takes."""
    one = numpy_helper.from_array(np.array([1], dtype=np.float32), "one")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceSum", ["ones"], ["output"], keepdims=1),
    ]
    return _model(nodes, [_value("size", [1], TensorProto.INT64)], [_value("output", [1])])


def accumulator(element_type=TensorProto.INT64, shape=("batch", 2)):
    """``input`` plus ``state`` is ``output``, and also ``new_state``: a sum over a sequence."""
    nodes = [
        helper.make_node("Add", ["input", "state"], ["output"]),
        helper.make_node("Identity", ["output"], ["new_state"]),
    ]
    inputs = [_value(name, shape, element_type) for name in ("state", "input")]
    return _model(nodes, inputs, [_value(name, shape, element_type) for name in ("new_state", "output")])


def picking_accumulator():
    """INT64 ``index`` [batch], 0 to 9, plus ``state`` is ``output`` and ``new_state``; another index fails the run."""
    table = numpy_helper.from_array(np.arange(10, dtype=np.int64), "table")
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["picked"]),
        helper.make_node("Add", ["picked", "state"], ["output"]),
        helper.make_node("Identity", ["output"], ["new_state"]),
    ]
    inputs = [_value(name, ["batch"], TensorProto.INT64) for name in ("index", "state")]
    outputs = [_value(name, ["batch"], TensorProto.INT64) for name in ("output", "new_state")]
    return _model(nodes, inputs, outputs, [table])


def appender(element_type=TensorProto.FLOAT):
    """``state`` [batch, length] with ``input`` [batch, 1] behind it is ``output``, and ``new_state``."""
    nodes = [
        helper.make_node("Concat", ["state", "input"], ["output"], axis=1),
        helper.make_node("Identity", ["output"], ["new_state"]),
    ]
    inputs = [_value("state", ["batch", "length"], element_type), _value("input", ["batch", 1], element_type)]
    outputs = [_value(name, ["batch", "longer"], element_type) for name in ("output", "new_state")]
    return _model(nodes, inputs, outputs)


def control_witness(flag_type=TensorProto.INT32, id_type=TensorProto.UINT64, rows=("batch",)):
    """FP32 ``input`` to ``output``; ``start``, ``ready``, ``end`` and ``id`` to outputs named ``start_seen`` …"""
    types = {"input": TensorProto.FLOAT, "start": flag_type, "ready": flag_type, "end": flag_type, "id": id_type}
    seen = {name: "output" if name == "input" else f"{name}_seen" for name in types}
    nodes = [helper.make_node("Identity", [name], [seen[name]]) for name in types]
    inputs = [_value(name, [*rows, 1], element_type) for name, element_type in types.items()]
    return _model(nodes, inputs, [_value(seen[name], [*rows, 1], types[name]) for name in types])


def convolution(channels=64, size=64, layers=1, seed=11):
    """FP32 ``input`` [batch, 3, size, size] through 3×3 convolutions to FP32 ``output`` [batch, 10].

    With the defaults a row takes 22 MFLOP, in the stem and one strided body layer; with 96 channels 48.
    """
    generator = np.random.default_rng(seed)
    initializers, nodes, previous, inputs = [], [], "input", 3
    for layer in range(layers + 1):
        kernel = (generator.standard_normal((channels, inputs, 3, 3)) * 0.1).astype(np.float32)
        initializers.append(numpy_helper.from_array(kernel, f"k{layer}"))
        nodes.append(
            helper.make_node("Conv", [previous, f"k{layer}"], [f"c{layer}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        previous, inputs = f"r{layer}", channels
    initializers.append(numpy_helper.from_array(generator.standard_normal((channels, 10)).astype(np.float32), "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [previous], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["output"]),
    ]
    return _model(nodes, [_value("input", ["batch", 3, size, size])], [_value("output", ["batch", 10])], initializers)


def slow(iterations=200_000):
    """FP32 ``input`` [batch, 4] to itself after a Loop of `iterations` additions of 0, for runs that take a while."""
    trips = numpy_helper.from_array(np.array(iterations, dtype=np.int64), "trips")
    return _looping([], [trips])


def slow_accumulator(iterations=200_000):
    """As `slow`, and ``output`` plus ``sum`` is ``total``, and also ``new_sum``: a sum over a sequence."""
    model = slow(iterations)
    model.graph.node.extend(
        [helper.make_node("Add", ["output", "sum"], ["total"]), helper.make_node("Identity", ["total"], ["new_sum"])]
    )
    model.graph.input.append(_value("sum", ["batch", 4]))
    model.graph.output.extend([_value(name, ["batch", 4]) for name in ("total", "new_sum")])
    return model


def slow_by_value():
    """As `slow`, with as many iterations as the largest number of ``input`` says."""
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["trips"], to=TensorProto.INT64),
    ]
    return _looping(nodes, [])


def _looping(nodes, initializers):
    """``input`` to itself after a Loop of ``trips`` iterations, which the nodes or initializers give."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Add", ["state", "zero"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            _value("state", None),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), _value("next", None)],
    )
    constants = [
        numpy_helper.from_array(np.array(True), "go"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
    ]
    loop = helper.make_node("Loop", ["trips", "go", "input"], ["output"], body=body)
    shapes = [_value("input", ["batch", 4])], [_value("output", ["batch", 4])]
    return _model([*nodes, loop], *shapes, [*initializers, *constants])


def halver():
    """FP32 ``input`` [batch, 4] to the first half of its rows: its output promises a batch and breaks it."""
    return _halving(0, ["batch", 4], ["batch", 4])


def shorter_than_declared(columns):
    """FP32 ``input`` [1, columns] to the first half of it, though ``output`` is declared as [1, columns]."""
    return _halving(1, [1, "columns"], [1, columns])


def _halving(axis, input_shape, output_shape):
    """``input`` to the first half of it along an axis."""
    initializers = [
        numpy_helper.from_array(np.array(value, dtype=np.int64), name)
        for name, value in (("start", [0]), ("two", 2), ("axes", [axis]), ("axis", axis), ("one", [1]))
    ]
    nodes = [
        helper.make_node("Shape", ["input"], ["shape"]),
        helper.make_node("Gather", ["shape", "axis"], ["size"]),
        helper.make_node("Div", ["size", "two"], ["half"]),
        helper.make_node("Reshape", ["half", "one"], ["end"]),
        helper.make_node("Slice", ["input", "start", "end", "axes"], ["output"]),
    ]
    return _model(nodes, [_value("input", input_shape)], [_value("output", output_shape)], initializers)


def sequence():
    """FP32 ``input`` [batch, 4] to a sequence of one tensor, which the protocol cannot carry."""
    node = helper.make_node("SequenceConstruct", ["input"], ["output"])
    output = helper.make_tensor_sequence_value_info("output", TensorProto.FLOAT, ["batch", 4])
    return _model([node], [_value("input", ["batch", 4])], [output])


def newer_opset():
    """A model whose opset no released library knows."""
    model = identity()
    model.opset_import[0].version = 999
    return model


def save(model, repository, name="tiny", version=1, config=None):
    """Put a model into a repository as ``<name>/<version>/model.onnx``; return the file's path."""
    folder = Path(repository) / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(model, path)
    if config is not None:
        (folder.parent / "config.pbtxt").write_text(config)
    return path
