"""Models whose batches are ragged or padded, in the way of onnx_models, and the configurations that go with them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx_models import ELEMENT_TYPES, IR_VERSION, OPSET

FAR = 2**31 - 1
# The inputs that `witness` takes beside its values, by what they tell.
KINDS = {
    "count": "BATCH_ELEMENT_COUNT",
    "ends": "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "edges": "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "most": "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "shapes": "BATCH_ITEM_SHAPE",
    "flat": "BATCH_ITEM_SHAPE_FLATTEN",
}
SUMS = """max_batch_size: 8
input { name: "values" data_type: TYPE_FP32 dims: [-1] allow_ragged_batch: true }
output { name: "output" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }
output { name: "doubled" data_type: TYPE_FP32 dims: [-1] }
batch_input {
  kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "edges" data_type: TYPE_INT32 source_input: "values"
}
batch_output { target_name: "doubled" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "values" }
"""
PADDING = 'parameters { key: "pad_inputs" value { string_value: "ids=-1, mask=0" } }'


def make_model(nodes, inputs, outputs, initializers=()):
    """A model of the opset that all tests use."""
    graph = helper.make_graph(nodes, "uneven", inputs, outputs, initializer=list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def make_value(name, shape, element_type=TensorProto.FLOAT):
    """An input or output."""
    return helper.make_tensor_value_info(name, element_type, shape)


def _numbers(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _slice(source, made, first, end):
    return helper.make_node("Slice", [source, first, end], [made])


def ragged_sums(count_type=TensorProto.INT32):
    """FP32 ``values`` [elements] between ``edges`` [requests + 1] to sums, ``output`` [requests], and ``doubled``."""
    constants = [
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        *(
            _numbers(name, values)
            for name, values in (("axis", 0), ("0", [0]), ("1", [1]), ("-1", [-1]), ("far", [FAR]))
        ),
    ]
    nodes = [
        helper.make_node("Add", ["values", "values"], ["doubled"]),
        helper.make_node("Concat", ["zero", "values"], ["extended"], axis=0),
        helper.make_node("CumSum", ["extended", "axis"], ["sums"]),
        helper.make_node("Cast", ["edges"], ["places"], to=TensorProto.INT64),
        _slice("places", "begins", "0", "-1"),
        _slice("places", "ends", "1", "far"),
        helper.make_node("Gather", ["sums", "begins"], ["before"]),
        helper.make_node("Gather", ["sums", "ends"], ["behind"]),
        helper.make_node("Sub", ["behind", "before"], ["output"]),
    ]
    inputs = [make_value("values", ["elements"]), make_value("edges", ["edges"], count_type)]
    return make_model(nodes, inputs, [make_value("output", ["batch"]), make_value("doubled", ["elements"])], constants)


def ragged_accumulator():
    """As `ragged_sums`, and ``output`` plus ``state`` is ``total``, and also ``new_state``: a sum over a sequence."""
    model = ragged_sums()
    model.graph.node.extend(
        [
            helper.make_node("Add", ["output", "state"], ["total"]),
            helper.make_node("Identity", ["total"], ["new_state"]),
        ]
    )
    model.graph.input.append(make_value("state", ["batch"]))
    model.graph.output.extend([make_value(name, ["batch"]) for name in ("total", "new_state")])
    return model


def witness(count_type=TensorProto.INT32, columns=1):
    """What each request's batch inputs said, as outputs of one row a request: ``count_seen`` and so on.

    FP32 ``values`` is ``same``. ``edges`` is seen without its first element, and of ``most`` its shape.
    """
    constants = [_numbers("1", [1]), _numbers("far", [FAR])]
    nodes = [
        helper.make_node("Identity", ["values"], ["same"]),
        helper.make_node("Identity", ["count"], ["count_seen"]),
        helper.make_node("Identity", ["ends"], ["ends_seen"]),
        _slice("edges", "edges_seen", "1", "far"),
        helper.make_node("Shape", ["most"], ["size"]),
        helper.make_node("Shape", ["count"], ["requests"]),
        helper.make_node("Expand", ["size", "requests"], ["most_seen"]),
        helper.make_node("Identity", ["shapes"], ["shapes_seen"]),
        helper.make_node("Shape", ["shapes"], ["outline"]),
        helper.make_node("Reshape", ["flat", "outline"], ["flat_seen"]),
    ]
    inputs = [make_value("values", ["elements"])]
    inputs += [make_value(name, [name, columns] if name == "shapes" else [name], count_type) for name in KINDS]
    outputs = [make_value("same", ["elements"])]
    for name in KINDS:
        element_type = TensorProto.INT64 if name == "most" else count_type
        shape = ["batch", columns] if name in ("shapes", "flat") else ["batch"]
        outputs.append(make_value(f"{name}_seen", shape, element_type))
    return make_model(nodes, inputs, outputs, constants)


def flat_identity(datatype):
    """``values`` [elements] of any datatype to ``same``."""
    element_type = ELEMENT_TYPES[datatype]
    node = helper.make_node("Identity", ["values"], ["same"])
    return make_model(
        [node], [make_value("values", ["elements"], element_type)], [make_value("same", ["elements"], element_type)]
    )


def encoder():
    """INT64 ``ids`` and FP32 ``mask`` [batch, length] to outputs that follow the length, and some that do not.

    ``tokens`` is ids + 1, ``pairs`` [batch, length, length] their products, ``pooled`` [batch] the sum of those that
    the mask leaves, and ``length_seen`` [batch] how long the model found its rows to be.
    """
    constants = [_numbers(name, values) for name, values in (("one", 1), ("1", [1]), ("2", [2]), ("0", [0]))]
    nodes = [
        helper.make_node("Add", ["ids", "one"], ["tokens"]),
        helper.make_node("Unsqueeze", ["ids", "1"], ["across"]),
        helper.make_node("Unsqueeze", ["ids", "2"], ["down"]),
        helper.make_node("Mul", ["down", "across"], ["pairs"]),
        helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "1"], ["pooled"], keepdims=0),
        helper.make_node("Shape", ["ids"], ["outline"]),
        _slice("outline", "rows", "0", "1"),
        _slice("outline", "size", "1", "2"),
        helper.make_node("Expand", ["size", "rows"], ["length_seen"]),
    ]
    inputs = [make_value("ids", ["batch", "length"], TensorProto.INT64), make_value("mask", ["batch", "length"])]
    outputs = [
        make_value("tokens", ["batch", "length"], TensorProto.INT64),
        make_value("pairs", ["batch", "length", "length"], TensorProto.INT64),
        make_value("pooled", ["batch"]),
        make_value("length_seen", ["batch"], TensorProto.INT64),
    ]
    return make_model(nodes, inputs, outputs, constants)


def texts_of():
    """INT64 ``ids`` [batch, length] as texts, BYTES ``texts`` of the same shape."""
    node = helper.make_node("Cast", ["ids"], ["texts"], to=TensorProto.STRING)
    return make_model(
        [node],
        [make_value("ids", ["batch", "length"], TensorProto.INT64)],
        [make_value("texts", ["batch", "length"], TensorProto.STRING)],
    )


def padded_identity(datatype, shape=("batch", "length")):
    """``input`` of any datatype to ``same``, whose dimensions have the same names, and ``whole``, whose have others."""
    element_type = ELEMENT_TYPES[datatype]
    nodes = [helper.make_node("Identity", ["input"], [name]) for name in ("same", "whole")]
    other = ["batch", *(f"other {dim}" for dim in shape[1:])]
    outputs = [make_value("same", shape, element_type), make_value("whole", other, element_type)]
    return make_model(nodes, [make_value("input", shape, element_type)], outputs)


def table_rows(size=10, shape=("batch", "length")):
    """INT64 ``index`` below a size to FP32 ``output`` of its shape, 1.5 times it; a larger index fails the run."""
    table = numpy_helper.from_array(np.arange(size, dtype=np.float32) * 1.5, "table")
    node = helper.make_node("Gather", ["table", "index"], ["output"])
    return make_model([node], [make_value("index", shape, TensorProto.INT64)], [make_value("output", shape)], [table])


def shortener():
    """FP32 ``input`` [batch, length] without its last column, though ``output`` is said to have the same length."""
    return _cutting(1)


def rowless():
    """FP32 ``input`` [batch, length] without its last row, though ``output`` is said to have as many."""
    return _cutting(0)


def _cutting(axis):
    constants = [_numbers(name, values) for name, values in (("0", [0]), ("-1", [-1]), ("axes", [axis]))]
    node = helper.make_node("Slice", ["input", "0", "-1", "axes"], ["output"])
    inputs, outputs = ([make_value(name, ["batch", "length"])] for name in ("input", "output"))
    return make_model([node], inputs, outputs, constants)
