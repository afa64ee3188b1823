"""service.declared_tensors: what an ONNX file declares is what ONNX Runtime makes of it."""

import onnx
import pytest
from onnx import TensorProto, helper

from kernels.session import Session
from service.declared_tensors import UndeclaredError, read_declared
from service.onnx_file import OnnxFileError
from tests import onnx_models

MODELS = {
    "perceptron": onnx_models.tiny,
    "two_inputs": onnx_models.add_and_subtract,
    "no_batch": onnx_models.column_sums,
    "scalar": onnx_models.scalar_doubler,
    "table": onnx_models.picker,
    "convolution": onnx_models.convolution,
    "loop": onnx_models.slow,
    "value_given": onnx_models.scaler,
    **{
        f"identity_{name}": lambda element_type=element_type: onnx_models.identity(element_type)
        for name, element_type in onnx_models.ELEMENT_TYPES.items()
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_read_declared_tells_what_the_session_tells(tmp_path, name):
    """Names, datatypes, shapes and names of dimensions, in the same order; a weight is no input."""
    path = onnx_models.save(MODELS[name](), tmp_path)
    session = Session(str(path))
    assert read_declared(path) == (session.inputs, session.outputs)


def test_read_declared_with_optional_inputs_puts_them_last(tmp_path):
    """As the session does."""
    path = onnx_models.save(onnx_models.scaler(), tmp_path)
    session = Session(str(path), optional_inputs=["scale"])
    assert [spec.name for spec in session.inputs] == ["input", "scale"]
    assert read_declared(path, ["scale"]) == (session.inputs, session.outputs)


def shapeless():
    """A model whose output is declared without a shape."""
    model = onnx_models.identity()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def typeless():
    """One whose output is declared without a type."""
    model = onnx_models.identity()
    model.graph.output[0].ClearField("type")
    return model


def complex_numbers():
    """One with elements that the protocol has no name for."""
    values = [helper.make_tensor_value_info(name, TensorProto.COMPLEX64, [1]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "test", values[:1], values[1:])
    return helper.make_model(graph)


@pytest.mark.parametrize("make", [shapeless, typeless, complex_numbers, onnx_models.sequence])
def test_read_declared_of_what_is_not_declared_says_so(tmp_path, make):
    """ONNX Runtime may know; the file does not."""
    path = tmp_path / "model.onnx"
    onnx.save(make(), path)
    with pytest.raises(UndeclaredError):
        read_declared(path)


def test_read_declared_with_optional_input_without_value_says_so(tmp_path):
    """It could not be left out."""
    with pytest.raises(UndeclaredError, match="optional"):
        read_declared(onnx_models.save(onnx_models.identity(), tmp_path), ["input"])


@pytest.mark.parametrize("keep", [0, 1, 10, 40, -3])
def test_read_declared_of_broken_file_says_so(tmp_path, keep):
    """Cut off anywhere."""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_models.tiny().SerializeToString()[:keep])
    with pytest.raises((OnnxFileError, UndeclaredError)):
        read_declared(path)


def test_read_declared_of_missing_file_says_so(tmp_path):
    """With the system's reason."""
    with pytest.raises(OnnxFileError, match="No such file"):
        read_declared(tmp_path / "model.onnx")
