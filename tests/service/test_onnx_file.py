"""The walk over ONNX files: external data is found wherever it hides, and no file makes it fail otherwise."""

import os
import tracemalloc

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service import onnx_file
from service.onnx_file import OnnxFileError, check_self_contained
from tests.onnx_models import identity


def check(tmp_path, content):
    """Check a file of this content."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    check_self_contained(path)


def external_tensor(name="weights"):
    """A tensor whose data lies in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../secret.bin")
    return tensor


def node_with(**attributes):
    """A node that carries attributes."""
    return helper.make_node("Constant", [], ["c"], **attributes)


def graph_with(tensor):
    """A subgraph with an initializer."""
    return helper.make_graph([], "inner", [], [], initializer=[tensor])


def sparse(tensor):
    """A sparse tensor with these values."""
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    return helper.make_sparse_tensor(tensor, indices, [4])


def in_function(model, tensor):
    """Hide a tensor in a function's node."""
    function = helper.make_function("d", "f", [], ["c"], [node_with(value=tensor)], model.opset_import)
    model.functions.append(function)


def in_function_default(model, tensor):
    """Hide a tensor in the default of a function's attribute."""
    function = helper.make_function("d", "f", [], [], [], model.opset_import)
    function.attribute_proto.append(helper.make_attribute("a", tensor))
    model.functions.append(function)


HIDING_PLACES = {
    "initializer": lambda model, tensor: model.graph.initializer.append(tensor),
    "sparse initializer": lambda model, tensor: model.graph.sparse_initializer.append(sparse(tensor)),
    "attribute": lambda model, tensor: model.graph.node.append(node_with(value=tensor)),
    "attribute list": lambda model, tensor: model.graph.node.append(node_with(values=[tensor])),
    "sparse attribute": lambda model, tensor: model.graph.node.append(node_with(value=sparse(tensor))),
    "subgraph": lambda model, tensor: model.graph.node.append(node_with(body=graph_with(tensor))),
    "subgraph list": lambda model, tensor: model.graph.node.append(node_with(bodies=[graph_with(tensor)])),
    "function": in_function,
    "function default": in_function_default,
    "training": lambda model, tensor: model.training_info.add().algorithm.CopyFrom(graph_with(tensor)),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_check_with_external_tensor_anywhere_names_it(tmp_path, place):
    """Every way from a model to a tensor is walked, and the same way with data inside is accepted."""
    outside, inside = identity(), identity()
    HIDING_PLACES[place](outside, external_tensor("hidden"))
    HIDING_PLACES[place](inside, helper.make_tensor("hidden", TensorProto.FLOAT, [4], [1, 2, 3, 4]))
    check(tmp_path, inside.SerializeToString())
    with pytest.raises(OnnxFileError, match="tensor 'hidden' has its data in another file"):
        check(tmp_path, outside.SerializeToString())


def test_check_with_location_but_no_mark_refuses(tmp_path):
    """A reader that trusts the location alone would follow it too."""
    tensor = external_tensor()
    tensor.ClearField("data_location")
    model = identity()
    model.graph.initializer.append(tensor)
    with pytest.raises(OnnxFileError, match="another file"):
        check(tmp_path, model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\x3a\x05abc", "a length of 5 where 3 bytes are left at byte 2"),
        (b"\x3a", "a number that is cut off"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x00\x00", "field number out of range"),
        (b"\x0f", "wire type 7"),
        (b"\x0c", "wire type 4"),
        (b"\x0d\x00", "fixed-size number that is cut off"),
        (b"\x0b\x14", "end of a group that was not begun"),
        (b"\x0b" * 200, "groups are nested more than 100 deep"),
        (b"<html>not a model</html>", "not ONNX or is cut off"),
    ],
)
def test_check_of_broken_wire_says_what_is_wrong(tmp_path, content, expected):
    """An operator learns that the file is broken, and where."""
    with pytest.raises(OnnxFileError, match=expected):
        check(tmp_path, content)


def test_check_of_subgraphs_nested_without_end_refuses(tmp_path):
    """Depth costs no Python stack, and it is bounded."""
    message = b""
    for number in [7, *[1, 5, 6] * 60][::-1]:
        length, size = bytearray(), len(message)
        while size >= 0x80:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        message = bytes([number << 3 | 2, *length, size]) + message
    with pytest.raises(OnnxFileError, match="nested more than 100 deep"):
        check(tmp_path, message)


def test_check_of_endless_fields_stops(tmp_path, monkeypatch):
    """A file of nothing but tiny fields does not hold up the server."""
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 1000)
    check(tmp_path, b"\x08\x01" * 1000)
    with pytest.raises(OnnxFileError, match="more than 1000 fields"):
        check(tmp_path, b"\x08\x01" * 1001)


def test_check_of_large_file_reads_no_tensor(tmp_path):
    """Half a gigabyte of weights costs no memory: the file is a hole, and reading it would take its size."""
    size = 1 << 29
    raw = TensorProto(name="w", data_type=TensorProto.FLOAT, raw_data=b"")
    head = b"\x4a" + encode_varint(size)
    tensor = raw.SerializeToString() + head
    graph = b"\x2a" + encode_varint(len(tensor) + size) + tensor
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a" + encode_varint(len(graph) + size) + graph)
    os.truncate(path, path.stat().st_size + size)
    tracemalloc.start()
    check_self_contained(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def encode_varint(value):
    """A number on the wire."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def has_external_tensor(message):
    """Whether protobuf's own reading of a model finds one."""
    if isinstance(message, TensorProto):
        return message.data_location == TensorProto.EXTERNAL
    fields = [(field, value) for field, value in message.ListFields() if field.message_type is not None]
    items = [item for field, value in fields for item in (value if field.is_repeated else [value])]
    return any(has_external_tensor(item) for item in items)


def build_hostile_model():
    """One with external tensors in every place."""
    model = identity()
    for place, hide in HIDING_PLACES.items():
        hide(model, external_tensor(place))
    return model.SerializeToString()


HOSTILE = build_hostile_model()


@given(st.lists(st.tuples(st.integers(0, len(HOSTILE) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 40))
def test_check_of_mutated_file_agrees_with_protobuf(tmp_path_factory, changes, cut):
    """Whatever protobuf reads as a model with external data is refused, and only by OnnxFileError."""
    content = bytearray(HOSTILE[: len(HOSTILE) - cut])
    for position, value in changes:
        content[position % len(content)] = value
    accepted = True
    try:
        check(tmp_path_factory.getbasetemp(), bytes(content))
    except OnnxFileError:
        accepted = False
    if accepted:
        try:
            model = onnx.ModelProto.FromString(bytes(content))
        except Exception as error:
            assert type(error).__name__ == "DecodeError"  # noqa: PT017 - refused by the next reader, which is fine
        else:
            assert not has_external_tensor(model)


def test_check_of_missing_file_says_so(tmp_path):
    """A file can vanish between scan and load."""
    with pytest.raises(OnnxFileError, match="cannot be read: No such file"):
        check_self_contained(tmp_path / "none.onnx")
