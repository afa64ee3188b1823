"""The models that Triton's client examples and test suites call, under their names, as small ONNX files."""

import numpy as np
import onnx_models
from onnx import TensorProto, helper, numpy_helper

COLUMNS = 16
# The element type of each model of the examples that adds and subtracts.
ADDERS = {"simple": TensorProto.INT32, "simple_int8": TensorProto.INT8, "simple_string": TensorProto.STRING}
BATCHED = "max_batch_size: 8"
UNBATCHED = "max_batch_size: 0"
# Triton's way to a model that takes one number a row: callers see [1], the model no dimension but the batch.
SCALAR_ROWS = """max_batch_size: 8
input { name: "input" dims: [1] reshape { shape: [] } }
output { name: "output" dims: [1] reshape { shape: [] } }
"""
# Callers see rows of any number of elements, the model rows of pairs.
PAIRS = """max_batch_size: 8
input { name: "input" dims: [-1, 2] reshape { shape: [-1, 1, 2] } }
output { name: "output" dims: [-1, 1, 2] reshape { shape: [-1, 1, 2] } }
"""
WARM = """max_batch_size: 8
model_warmup {
  count: 3 batch_size: 4
  inputs { key: "input" value { data_type: TYPE_FP32 dims: 4 random_data: true } }
}
"""


def sum_and_difference(element_type):
    """``INPUT0`` and ``INPUT1`` [batch, 16] to ``OUTPUT0``, their sum, and ``OUTPUT1``, their difference.

    Strings are read as numbers and written again; INT8, which ONNX Runtime does not add, goes through INT32.
    """
    is_plain = element_type == TensorProto.INT32
    read, made = (["INPUT0", "INPUT1"], ["OUTPUT0", "OUTPUT1"]) if is_plain else (["a", "b"], ["sum", "difference"])
    nodes = [helper.make_node("Add", read, made[:1]), helper.make_node("Sub", read, made[1:])]
    if not is_plain:
        nodes = [cast(f"INPUT{place}", read[place], TensorProto.INT32) for place in range(2)] + nodes
        nodes += [cast(made[place], f"OUTPUT{place}", element_type) for place in range(2)]
    inputs, outputs = (
        [helper.make_tensor_value_info(f"{kind}{place}", element_type, ["batch", COLUMNS]) for place in range(2)]
        for kind in ("INPUT", "OUTPUT")
    )
    return make_model(nodes, inputs, outputs)


def cast(source, target, element_type):
    """A node that turns one tensor into another of a type."""
    return helper.make_node("Cast", [source], [target], to=element_type)


def total():
    """FP32 ``input`` [size] to its sum, FP32 ``output`` [1], and how many they are, INT64 ``count`` [1]."""
    axes = numpy_helper.from_array(np.array([0]), "axes")
    nodes = [
        helper.make_node("ReduceSum", ["input", "axes"], ["output"], keepdims=1),
        helper.make_node("Shape", ["input"], ["count"]),
    ]
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["size"])]
    made = [
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
    ]
    return make_model(nodes, given, made, [axes])


def divider():
    """FP32 ``a`` and ``b`` [batch, 3] to FP32 ``output``, their quotient."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("a", "b")]
    made = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])]
    return make_model([helper.make_node("Div", ["a", "b"], ["output"])], given, made)


def make_model(nodes, inputs, outputs, initializers=()):
    """A model of the opset that all tests use."""
    graph = helper.make_graph(nodes, "example", inputs, outputs, initializer=list(initializers))
    opset = helper.make_opsetid("", onnx_models.OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=onnx_models.IR_VERSION)


def write_examples(folder):
    """Fill a folder with the models of the checks; nothing in it is broken."""
    for name, element_type in ADDERS.items():
        onnx_models.save(sum_and_difference(element_type), folder, name, config=BATCHED)
    for datatype, element_type in onnx_models.ELEMENT_TYPES.items():
        shaped = onnx_models.identity(element_type, ("batch", "a", "b"))
        onnx_models.save(shaped, folder, f"variable_{datatype}", config=BATCHED)
        onnx_models.save(onnx_models.identity(element_type, ("a",)), folder, f"zero_{datatype}", config=UNBATCHED)
        onnx_models.save(onnx_models.identity(element_type, ()), folder, f"scalar_{datatype}", config=UNBATCHED)
        onnx_models.save(onnx_models.identity(element_type, ("batch",)), folder, f"rows_{datatype}", config=SCALAR_ROWS)
    onnx_models.save(onnx_models.identity(shape=("batch", "n", 1, 2)), folder, "pairs", config=PAIRS)
    onnx_models.save(divider(), folder, "divider", config=BATCHED)
    onnx_models.save(total(), folder, "total", config=UNBATCHED)
    onnx_models.save(onnx_models.identity(), folder, "counted", config="max_batch_size: 4")
    onnx_models.save(onnx_models.widener(), folder, "wide", config=BATCHED)
    for name in ("warm", "untouched"):
        onnx_models.save(onnx_models.identity(), folder, name, config=WARM)
    onnx_models.save(onnx_models.picker(), folder, "picker", config=BATCHED)
    onnx_models.save(onnx_models.slow_by_value(), folder, "slow_by_value", config="max_batch_size: 1")
    return folder
