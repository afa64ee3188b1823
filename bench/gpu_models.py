"""The models that GPUs are measured with: ResNet-50 and an encoder of BERT-base's size, with fixed random weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 20240601
OPSET, IR_VERSION = 17, 8
MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLASSES = 1000
EXPANSION = 4


@dataclass
class GraphBuilder:
    """Nodes and weights of a graph in the making; each `add` returns the name of what it gives."""

    dtype: np.dtype
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(SEED)

    def add(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: object) -> str:
        """Add a node with one output."""
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: object, dtype: object = None) -> str:
        """Add a tensor of known values."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype or self.dtype), name))
        return name

    def random(self, shape: Sequence[int], fan_in: int) -> str:
        """Add weights whose sums over `fan_in` inputs keep about the size of their inputs."""
        return self.constant(self._random.standard_normal(shape) / np.sqrt(fan_in))

    def finish(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The model."""
        graph = helper.make_graph(self.nodes, "bench", inputs, outputs, initializer=self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def element_type(dtype: np.dtype) -> int:
    """ONNX's number for a NumPy dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


# ---- ResNet-50


def resnet(
    dtype: object = np.float16, *, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, size: int = 224
) -> onnx.ModelProto:
    """UINT8 ``input`` [batch, 3, size, size] to ``output`` [batch, 1000] of `dtype`; the defaults are ResNet-50.

    The normalisation of pictures is in the graph, and batch normalisation in the weights.
    """
    graph = GraphBuilder(np.dtype(dtype))
    cast = graph.add("Cast", ["input"], to=element_type(graph.dtype))
    centred = graph.add("Sub", [cast, graph.constant(np.reshape(MEAN, (3, 1, 1)))])
    flow = graph.add("Div", [centred, graph.constant(np.reshape(SPREAD, (3, 1, 1)))])
    flow = graph.add("Relu", [_convolve(graph, flow, 3, width, kernel=7, stride=2)])
    flow = graph.add("MaxPool", [flow], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            flow = _add_bottleneck(graph, flow, channels, width << stage, stride)
            channels = (width << stage) * EXPANSION
    flow = graph.add("Flatten", [graph.add("GlobalAveragePool", [flow])])
    graph.add("Gemm", [flow, graph.random((channels, CLASSES), channels), graph.constant(np.zeros(CLASSES))], "output")
    picture = helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 3, size, size])
    return graph.finish([picture], [helper.make_tensor_value_info("output", element_type(dtype), ["batch", CLASSES])])


def _convolve(graph: GraphBuilder, flow: str, inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> str:
    weights = graph.random((outputs, inputs, kernel, kernel), inputs * kernel * kernel)
    bias, pad = graph.constant(np.zeros(outputs)), kernel // 2
    return graph.add("Conv", [flow, weights, bias], strides=[stride] * 2, pads=[pad] * 4)


def _add_bottleneck(graph: GraphBuilder, flow: str, inputs: int, width: int, stride: int) -> str:
    outputs = width * EXPANSION
    inner = graph.add("Relu", [_convolve(graph, flow, inputs, width, kernel=1)])
    inner = graph.add("Relu", [_convolve(graph, inner, width, width, kernel=3, stride=stride)])
    inner = _convolve(graph, inner, width, outputs, kernel=1)
    around = flow
    if inputs != outputs or stride != 1:
        around = _convolve(graph, flow, inputs, outputs, kernel=1, stride=stride)
    return graph.add("Relu", [graph.add("Add", [inner, around])])


# ---- an encoder of BERT-base's size


def encoder(
    dtype: object = np.float16,
    *,
    layers: int = 12,
    hidden: int = 768,
    heads: int = 12,
    length: int = 128,
    vocabulary: int = 30522,
) -> onnx.ModelProto:
    """INT32 ``input`` [batch, length], numbers of words, to ``output`` [batch, hidden] of `dtype`, the first word's."""
    graph = GraphBuilder(np.dtype(dtype))
    words = graph.add("Gather", [graph.random((vocabulary, hidden), 1), "input"])
    flow = _normalize(graph, graph.add("Add", [words, graph.random((length, hidden), 1)]), hidden)
    for _ in range(layers):
        flow = _normalize(graph, graph.add("Add", [flow, _attend(graph, flow, hidden, heads, length)]), hidden)
        flow = _normalize(graph, graph.add("Add", [flow, _feed_forward(graph, flow, hidden)]), hidden)
    first = graph.add("Gather", [flow, graph.constant(0, np.int64)], axis=1)
    graph.add("Tanh", [_project(graph, first, hidden, hidden)], "output")
    given = helper.make_tensor_value_info("input", TensorProto.INT32, ["batch", length])
    return graph.finish([given], [helper.make_tensor_value_info("output", element_type(dtype), ["batch", hidden])])


def _project(graph: GraphBuilder, flow: str, inputs: int, outputs: int) -> str:
    product = graph.add("MatMul", [flow, graph.random((inputs, outputs), inputs)])
    return graph.add("Add", [product, graph.constant(np.zeros(outputs))])


def _normalize(graph: GraphBuilder, flow: str, hidden: int) -> str:
    scale, bias = graph.constant(np.ones(hidden)), graph.constant(np.zeros(hidden))
    return graph.add("LayerNormalization", [flow, scale, bias], axis=-1, epsilon=1e-5)


def _attend(graph: GraphBuilder, flow: str, hidden: int, heads: int, length: int) -> str:
    shape = graph.constant([0, length, heads, hidden // heads], np.int64)

    def split(turned: Sequence[int]) -> str:
        return graph.add(
            "Transpose", [graph.add("Reshape", [_project(graph, flow, hidden, hidden), shape])], perm=turned
        )

    query, key, value = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    scores = graph.add("Div", [graph.add("MatMul", [query, key]), graph.constant(np.sqrt(hidden // heads))])
    mixed = graph.add("MatMul", [graph.add("Softmax", [scores], axis=-1), value])
    joined = graph.add("Transpose", [mixed], perm=[0, 2, 1, 3])
    flat = graph.add("Reshape", [joined, graph.constant([0, length, hidden], np.int64)])
    return _project(graph, flat, hidden, hidden)


def _feed_forward(graph: GraphBuilder, flow: str, hidden: int) -> str:
    """Two layers with GELU between them, as exporters write it."""
    inner = _project(graph, flow, hidden, 4 * hidden)
    erf = graph.add("Erf", [graph.add("Div", [inner, graph.constant(np.sqrt(2))])])
    gated = graph.add("Mul", [inner, graph.add("Add", [erf, graph.constant(1)])])
    return _project(graph, graph.add("Mul", [gated, graph.constant(0.5)]), 4 * hidden, hidden)
