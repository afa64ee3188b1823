"""The model repository that the end-to-end tests serve: models whose answers tell who gave them and to whom."""

import numpy as np
import onnx_models
from onnx import TensorProto, helper, numpy_helper
from onnx_models import ELEMENT_TYPES

# What version 1 of `adder` adds to each element, version 2 twice; above every nonce.
OFFSET = 10**12
VERSIONS = (1, 2)
SLOW_ITERATIONS = 200_000
UNBATCHED = "max_batch_size: 0"
RESHAPED = """max_batch_size: 8
input { name: "input" dims: [6] reshape { shape: [2, 3] } }
output { name: "output" dims: [3, 2] reshape { shape: [2, 3] } }
"""
LABELLED = 'max_batch_size: 8 output { name: "output" label_filename: "labels.txt" }'


def adder(version):
    """INT64 ``input`` [batch, 4] to itself plus the version's offset."""
    offset = numpy_helper.from_array(np.array(version * OFFSET), "offset")
    node = helper.make_node("Add", ["input", "offset"], ["output"])
    return make_model(node, ["batch", 4], TensorProto.INT64, ["batch", 4], TensorProto.INT64, [offset])


def expander():
    """INT64 ``input`` [1], a count, to as many FP32 ``output``: a small request for a reply of any size."""
    one = numpy_helper.from_array(np.array([1], np.float32), "one")
    node = helper.make_node("Expand", ["one", "input"], ["output"])
    return make_model(node, [1], TensorProto.INT64, ["count"], TensorProto.FLOAT, [one])


def make_model(node, input_shape, input_type, output_shape, output_type, initializers):
    """A model of one node from ``input`` to ``output``."""
    given = helper.make_tensor_value_info("input", input_type, input_shape)
    made = helper.make_tensor_value_info("output", output_type, output_shape)
    graph = helper.make_graph([node], "test", [given], [made], initializer=initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", onnx_models.OPSET)], ir_version=onnx_models.IR_VERSION
    )


def write_repository(folder):
    """Fill a folder with everything that the tests call; nothing in it is broken."""
    for version in VERSIONS:
        onnx_models.save(adder(version), folder, "adder", version, "max_batch_size: 8")
    for datatype, element_type in ELEMENT_TYPES.items():
        onnx_models.save(onnx_models.identity(element_type), folder, f"identity_{datatype}")
    onnx_models.save(onnx_models.identity(TensorProto.DOUBLE, ("a", "b")), folder, "wide", config=UNBATCHED)
    onnx_models.save(onnx_models.add_and_subtract(), folder, "sums")
    onnx_models.save(onnx_models.scalar_doubler(), folder, "scalar")
    onnx_models.save(onnx_models.scaler(), folder, "scaler", config='input { name: "scale" optional: true }')
    onnx_models.save(onnx_models.identity(shape=("batch", 2, 3)), folder, "reshaped", config=RESHAPED)
    onnx_models.save(onnx_models.identity(shape=("batch", 3)), folder, "labelled", config=LABELLED)
    (folder / "labelled" / "labels.txt").write_text("cat\ndog\nbird\n")
    onnx_models.save(onnx_models.picker(), folder, "picker")
    onnx_models.save(expander(), folder, "expander")
    onnx_models.save(onnx_models.slow(SLOW_ITERATIONS), folder, "slow", config=UNBATCHED)
    return folder
