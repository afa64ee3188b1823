"""How a model serves: the configuration completed from the model file and checked against it."""

import pytest
from google.protobuf import text_format

from kernels.session import TensorSpec
from service.config_text import ModelConfigError
from service.model_config import read_config
from service.serving_config import complete_config, has_batch_dimension

X = TensorSpec("x", "FP32", (-1, 64), ("N", ""))
Y = TensorSpec("y", "INT64", (-1,), ("N",))
IMAGE = TensorSpec("image", "FP32", (-1, 3, -1, -1), ("N", "", "h", "w"))


def complete(tmp_path, text="", inputs=(X,), outputs=(Y,), default=64):
    """Complete a configuration of this text."""
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    return complete_config("digits", read_config(path, "digits"), inputs, outputs, default)


def test_complete_config_of_nothing_is_filled_in_from_the_model(tmp_path):
    """A model without a configuration serves, and says how."""
    config = complete(tmp_path)
    assert (config.inputs, config.outputs) == ((X,), (Y,))
    assert config.max_batch_size == 64
    expected = """
        name: "digits" platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 64
        input { name: "x" data_type: TYPE_FP32 dims: [64] }
        output { name: "y" data_type: TYPE_INT64 }
        dynamic_batching {}
        instance_group { name: "digits_0" count: 1 kind: KIND_CPU }
        version_policy { all {} } default_model_filename: "model.onnx"
    """
    assert config.proto == text_format.Parse(expected, type(config.proto)())


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ((X,), (Y,), True),
        ((X._replace(dim_names=("", "")),), (Y._replace(dim_names=("",)),), True),
        ((X,), (Y._replace(dim_names=("",)),), False),
        ((X, IMAGE._replace(dim_names=("M", "", "", ""))), (Y,), False),
        ((X._replace(shape=(1, 64)),), (Y,), False),
        ((X,), (Y._replace(shape=(), dim_names=()),), False),
        ((), (Y,), False),
    ],
)
def test_has_batch_dimension_needs_one_open_first_dimension_everywhere(inputs, outputs, expected):
    """Rows of callers may be put together only where the model says that its first dimensions are one."""
    assert has_batch_dimension(inputs, outputs) is expected


def test_complete_config_without_batch_dimension_runs_one_request_at_a_time(tmp_path):
    """The default is for models that can be batched; a delay has nothing to wait for."""
    fixed = X._replace(shape=(1, 64))
    config = complete(tmp_path, "dynamic_batching { max_queue_delay_microseconds: 5 }", inputs=(fixed,))
    assert (config.max_batch_size, config.queue_delay_us) == (0, 0)
    assert list(config.proto.input[0].dims) == [1, 64]
    assert not complete(tmp_path, inputs=(fixed,)).proto.HasField("dynamic_batching")


def test_complete_config_takes_the_written_batch_size_over_the_default(tmp_path):
    """0 is a choice too, and a default of 0 turns batches off."""
    assert complete(tmp_path, "max_batch_size: 8").max_batch_size == 8
    assert complete(tmp_path, "max_batch_size: 0").max_batch_size == 0
    assert complete(tmp_path, default=0).max_batch_size == 0


def test_complete_config_whose_dims_count_the_batch_runs_one_request_at_a_time(tmp_path):
    """Whole shapes are how Triton's users write that there are no batches."""
    config = complete(tmp_path, 'input { name: "x" dims: [-1, 64] }')
    assert (config.max_batch_size, config.inputs) == (0, (X,))


def test_complete_config_with_narrower_dims_shows_them(tmp_path):
    """An operator may promise less than the model allows; -1 promises nothing more."""
    text = 'max_batch_size: 4 input { name: "image" dims: [-1, 224, -1] }'
    config = complete(tmp_path, text, inputs=(IMAGE,))
    assert config.inputs[0].shape == (-1, 3, 224, -1)
    assert list(config.proto.input[0].dims) == [3, 224, -1]


def test_complete_config_keeps_the_order_of_the_model(tmp_path):
    """Whatever the order in the file, and with what it leaves out."""
    text = 'max_batch_size: 4 input { name: "image" } input { name: "x" data_type: TYPE_FP32 }'
    config = complete(tmp_path, text, inputs=(X, IMAGE))
    assert [tensor.name for tensor in config.proto.input] == ["x", "image"]
    assert [spec.name for spec in config.inputs] == ["x", "image"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('input { name: "z" }', r"input\[0\].name: expected one of x, given 'z'"),
        ('output { name: "x" }', r"output\[0\].name: expected one of y, given 'x'"),
        ('input { name: "x" } input { name: "x" }', r"input\[1\].name: expected each name once, given 'x' again"),
        (
            'input { name: "x" data_type: TYPE_FP16 }',
            "input 'x': data_type: expected TYPE_FP32, as in the model file, given TYPE_FP16",
        ),
        ('input { name: "x" data_type: 99 }', "data_type: expected TYPE_FP32, as in the model file, given 99"),
        (
            'max_batch_size: 4 input { name: "x" dims: [32] }',
            r"input 'x': dims: expected \[64\], as in the model file, without the batch dimension, given \[32\]",
        ),
        (
            'max_batch_size: 4 input { name: "x" dims: [-1, 64] }',
            r"dims: expected \[64\], .*without the batch dimension, given \[-1, 64\]",
        ),
        ('max_batch_size: 0 input { name: "x" dims: [64] }', r"dims: expected \[-1, 64\], .*, given \[64\]"),
        ('max_batch_size: 0 input { name: "x" dims: [0, 64] }', r"dims: expected \[-1, 64\], .*, given \[0, 64\]"),
        ('max_batch_size: 0 input { name: "x" dims: [-2, 64] }', r"dims: expected \[-1, 64\], .*, given \[-2, 64\]"),
    ],
)
def test_complete_config_that_contradicts_the_model_says_expected_and_given(tmp_path, text, expected):
    """The operator learns which of the two to change."""
    with pytest.raises(ModelConfigError, match=expected):
        complete(tmp_path, text)


def test_complete_config_with_batches_where_the_model_has_none_refuses(tmp_path):
    """Batches need an open first dimension on every tensor."""
    with pytest.raises(ModelConfigError, match=r"max_batch_size: expected 0, given 8: .* input 'x' .* \[1, 64\]"):
        complete(tmp_path, "max_batch_size: 8", inputs=(X._replace(shape=(1, 64)),))
    with pytest.raises(ModelConfigError, match=r"max_batch_size: expected 0, given 8: .* output 'y' .* \[\]"):
        complete(tmp_path, "max_batch_size: 8", outputs=(Y._replace(shape=(), dim_names=()),))
