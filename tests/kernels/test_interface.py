"""kernels.interface: tensors that callers see in another shape than the model, and inputs that they may leave out."""

import numpy as np
import onnx_models
import pytest
from engine_calls import infer, refusal_of, submit_all
from inference_messages import build_request, decode_reply, encode_request
from onnx import TensorProto

from kernels import status
from kernels.interface import Interface
from kernels.session import Session, SessionError


@pytest.fixture
def load_shaped(engine, tmp_path):
    """Load a model that returns what it is given, in other shapes than callers see."""

    def load_model(model_shape, inputs, outputs, made=None, element_type=TensorProto.FLOAT, **options):
        model = onnx_models.identity(element_type, model_shape)
        session = Session(onnx_models.save(model, tmp_path, "same"))
        made = made or [spec.shape for spec in session.outputs]
        interface = Interface(session, inputs=inputs, outputs=outputs, made=made)
        engine.load("same", 1, session, interface=interface, **options)

    return load_model


# ---- reshape


@pytest.mark.parametrize(
    ("model_shape", "seen", "given"),
    [
        ((2, 3), (6,), (6,)),
        ((6,), (2, 3), (2, 3)),
        ((), (1,), (1,)),
        ((1,), (), ()),
        ((1, 1), (1,), (1,)),
        (("a", 2, "b"), (-1, 1, 2, -1, 1), (3, 1, 2, 5, 1)),
        ((8, "a", 1, 6), (2, 4, -1, 6), (2, 4, 7, 6)),
        (("a", 4), (-1, 2, 2), (0, 2, 2)),
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_tensor_comes_back_in_the_shape_that_callers_see(engine, load_shaped, model_shape, seen, given, datatype):
    """Of every rank, with open dimensions and an empty one, though the model has it otherwise."""
    load_shaped(model_shape, [seen], [seen], element_type=onnx_models.ELEMENT_TYPES[datatype])
    array = np.arange(np.prod(given, dtype=int), dtype=np.float32).reshape(given)
    if datatype == "BYTES":
        array = array.astype("S").astype(object)
    output = infer(engine, "same", {"input": array})["output"]
    assert output.shape == given
    assert output.tolist() == array.tolist()


def test_batches_of_reshaped_tensors_give_each_its_own_rows(engine, load_shaped):
    """The batch stays in front, in one run and in the reply."""
    load_shaped(("batch", 2, 3), [(-1, 6)], [(-1, 3, 2)], max_batch_size=8, queue_delay_us=300_000)
    arrays = {index: np.arange(6, dtype=np.float32).reshape(1, 6).repeat(index, 0) + 100 * index for index in (1, 2, 3)}
    requests = {index: build_request("same", {"input": array}) for index, array in arrays.items()}
    for call, code, payload in submit_all(engine, requests):
        assert code == status.OK
        output = decode_reply(payload)["output"]
        assert output.shape == (call.context, 3, 2)
        np.testing.assert_array_equal(output.reshape(-1, 6), arrays[call.context])
    assert engine.statistics("same", 1)["executions"] == 1


@pytest.mark.parametrize("columns", [1, 5000])
def test_large_output_is_reshaped_where_it_lies(engine, load_shaped, columns):
    """The reply is begun before the run, in the shape of callers."""
    load_shaped((1, 2, columns), [(2, columns)], [(columns, 2)])
    array = np.arange(2 * columns, dtype=np.float32).reshape(2, columns)
    output = infer(engine, "same", {"input": array})["output"]
    assert output.shape == (columns, 2)
    np.testing.assert_array_equal(output.ravel(), array.ravel())


def test_shape_of_the_model_is_refused_where_callers_have_another(engine, load_shaped):
    """And the refusal names the one that callers have."""
    load_shaped((2, 3), [(6,)], [(6,)])
    code, text = refusal_of(engine, encode_request("same", {"input": np.zeros((2, 3), np.float32)}))
    assert (code, text) == (status.INVALID, "input 'input' has the wrong rank: expected [6], got [2,3]")


def test_output_of_another_shape_than_promised_is_the_servers_fault(engine, load_shaped):
    """What the model made cannot be told to callers in their shape."""
    load_shaped(("a", "b"), [(-1, -1)], [(4,)], made=[(1, 4)])
    assert infer(engine, "same", {"input": np.zeros((1, 4), np.float32)})["output"].shape == (4,)
    code, text = refusal_of(engine, encode_request("same", {"input": np.zeros((2, 2), np.float32)}))
    assert (code, "output 'output' has another shape" in text) == (status.INTERNAL, True)


@pytest.mark.parametrize(
    ("inputs", "outputs", "made"),
    [
        ([(-1, -1)], [(-1,)], [(-1,)]),
        ([(4,)], [(-1,)], [(-1,)]),
        ([(-1,)], [(-1,)], [(4,)]),
        ([(-1,), (-1,)], [(-1,)], [(-1,)]),
        ([(-1,) + (1,) * 32], [(-1,)], [(-1,)]),
    ],
)
def test_interface_that_does_not_fit_the_model_is_refused(tmp_path, inputs, outputs, made):
    """Open dimensions are carried over one by one."""
    session = Session(onnx_models.save(onnx_models.identity(shape=("size",)), tmp_path))
    with pytest.raises(ValueError, match=r"open dimensions|expected 1 shapes"):
        Interface(session, inputs=inputs, outputs=outputs, made=made)


def test_interface_of_another_session_is_refused(engine, tmp_path):
    """Its names point into the one that it was made for."""
    path = onnx_models.save(onnx_models.identity(), tmp_path)
    with pytest.raises(ValueError, match="another session"):
        engine.load("same", 1, Session(path), interface=Interface(Session(path)))


# ---- optional inputs


@pytest.fixture
def load_scaler(engine, tmp_path):
    """Load a model whose input `scale` has a value of the model's own."""

    def load_model(**options):
        path = onnx_models.save(onnx_models.scaler(**options), tmp_path, "scaler")
        engine.load("scaler", 1, Session(path, optional_inputs=["scale"]))

    return load_model


@pytest.mark.parametrize("scale", [None, 5.0, -1.0])
def test_input_that_is_left_out_has_the_models_value(engine, load_scaler, scale):
    """One that is given replaces it, for that request."""
    load_scaler()
    rows = np.array([1, 2, 3], np.float32)
    for given in (scale, None):
        inputs = {"input": rows} if given is None else {"scale": np.array([given], np.float32), "input": rows}
        output = infer(engine, "scaler", inputs)["output"]
        np.testing.assert_array_equal(output, rows * (2.0 if given is None else given))


def test_optional_input_is_described_and_checked_as_others(engine, load_scaler, tmp_path):
    """By its name, its datatype and its shape."""
    load_scaler()
    session = Session(tmp_path / "scaler" / "1" / "model.onnx", optional_inputs=["scale"])
    assert [(spec.name, spec.shape) for spec in session.inputs] == [("input", (-1,)), ("scale", (1,))]
    inputs = {"input": np.zeros(3, np.float32), "scale": np.zeros(2, np.float32)}
    code, text = refusal_of(engine, encode_request("scaler", inputs))
    assert (code, text) == (status.INVALID, "input 'scale' has the wrong shape: expected [1], got [2]")
    code, text = refusal_of(engine, encode_request("scaler", {"scale": np.ones(1, np.float32)}))
    assert (code, text) == (status.INVALID, "input 'input' is missing; got 1 of 2 inputs")


def test_initializer_is_no_input_unless_it_is_named(engine, load):
    """Files of old list all weights as inputs."""
    load(onnx_models.scaler(), "scaler")
    inputs = {"input": np.zeros(3, np.float32), "scale": np.ones(1, np.float32)}
    code, text = refusal_of(engine, encode_request("scaler", inputs))
    assert (code, text) == (status.INVALID, "input 'scale' is unknown; the model has 'input'")


@pytest.mark.parametrize("name", ["input", "other"])
def test_optional_input_without_a_value_of_the_models_is_refused(tmp_path, name):
    """It could not be left out."""
    path = onnx_models.save(onnx_models.scaler(), tmp_path)
    with pytest.raises(SessionError, match=f"input '{name}' is to be optional, and the model file has no value for it"):
        Session(path, optional_inputs=[name])
