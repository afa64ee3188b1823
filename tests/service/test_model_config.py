"""config.pbtxt as it is written: what is read, what is refused, and where a text error is."""

import pytest

from service.model_config import MAX_FILE_BYTES, ModelConfigError, read_config

WHOLE = """
name: "digits"  # its folder
backend: "onnxruntime"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ 64 ] }]
output [{ name: "y" data_type: TYPE_INT64 dims: [ -1 ] }]
dynamic_batching { max_queue_delay_microseconds: 200 }
instance_group [{ count: 2 kind: KIND_CPU }, { kind: KIND_AUTO }]
parameters { key: "intra_op_thread_count" value { string_value: "3" } }
parameters { key: "inter_op_thread_count" value { string_value: "2" } }
"""


def read(tmp_path, text):
    """Read a configuration of this text for the model `digits`."""
    path = tmp_path / "config.pbtxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path, "digits")


def test_read_config_with_every_field_that_is_read_gives_their_values(tmp_path):
    """What Triton's users write for an ONNX model is understood."""
    written = read(tmp_path, WHOLE)
    assert (written.max_batch_size, written.queue_delay_us, written.instance_count) == (8, 200, 3)
    assert (written.intra_op_threads, written.inter_op_threads) == (3, 2)
    assert list(written.proto.input[0].dims) == [64]


def test_read_config_without_file_is_the_empty_configuration():
    """config.pbtxt is optional."""
    written = read_config(None, "digits")
    assert (written.max_batch_size, written.queue_delay_us, written.instance_count) == (None, 0, 1)
    assert written.proto.ByteSize() == 0


def test_read_config_tells_silence_about_batches_from_zero(tmp_path):
    """0 forbids batches, silence leaves the choice to the model file."""
    assert read(tmp_path, "").max_batch_size is None
    assert read(tmp_path, "max_batch_size: 0").max_batch_size == 0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("version_policy { all {} }", "version_policy"),
        ('default_model_filename: "m.onnx"', "default_model_filename"),
        ("sequence_batching {}", "sequence_batching"),
        ("ensemble_scheduling { step [] }", "ensemble_scheduling"),
        ("dynamic_batching { preferred_batch_size: [4] }", "dynamic_batching.preferred_batch_size"),
        ("dynamic_batching { default_queue_policy {} }", "dynamic_batching.default_queue_policy"),
        ('instance_group { profile: ["a"] }', "instance_group.profile"),
        ("input { reshape { shape: [1] } }", "input.reshape"),
        ("input { optional: true }", "input.optional"),
        ('output { label_filename: "l.txt" }', "output.label_filename"),
        ("model_warmup {}", "model_warmup"),
        ("response_cache { enable: true }", "response_cache"),
        ("optimization { graph { level: 1 } }", "optimization.graph"),
        ('metric_tags { key: "a" value: "b" }', "metric_tags"),
    ],
)
def test_read_config_with_field_that_is_not_read_refuses_it_by_name(tmp_path, text, field):
    """A setting must not be ignored in silence."""
    with pytest.raises(ModelConfigError, match=rf"config\.pbtxt: {field}: this server does not read the field"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('name: "digits"\nmax_batch_sizes: 8', r'config\.pbtxt:2:1: .*no field named "max_batch_sizes"'),
        ("input {\n  name: 3\n}", r"config\.pbtxt:2:9: .*Expected string"),
        ("max_batch_size: 99999999999", r"config\.pbtxt:1:17: .*out of range"),
        ("input { data_type: TYPE_FLOAT }", r"config\.pbtxt:1:20: .*no value named TYPE_FLOAT"),
        ("input {", r"config\.pbtxt:1:7: Expected"),
        ("\x00", r"config\.pbtxt:1:1: "),
    ],
)
def test_read_config_with_wrong_text_names_line_and_column(tmp_path, text, place):
    """An editor can go to the place."""
    with pytest.raises(ModelConfigError, match=place):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name: "digit"', "name: expected 'digits' or nothing, given 'digit'"),
        ('backend: "python"', "backend: expected 'onnxruntime' or nothing, given 'python'"),
        ('platform: "tensorrt_plan"', "platform: expected 'onnxruntime_onnx' or nothing, given 'tensorrt_plan'"),
        ("max_batch_size: -1", "max_batch_size: expected a number from 0 to 2147483647, given -1"),
        (
            "dynamic_batching { max_queue_delay_microseconds: 10000001 }",
            "max_queue_delay_microseconds: expected a number from 0 to 10000000, given 10000001",
        ),
        ("instance_group { count: -1 }", r"instance_group\[0\].count: expected a number from 0 to 1024, given -1"),
        (
            "instance_group { kind: KIND_MODEL }",
            r"instance_group\[0\].kind: expected KIND_CPU or KIND_GPU or KIND_AUTO, given KIND_MODEL",
        ),
        (
            "instance_group { kind: 77 }",
            r"instance_group\[0\].kind: expected KIND_CPU or KIND_GPU or KIND_AUTO, given 77",
        ),
        ("instance_group { count: 900 } instance_group { count: 900 }", "expected a number from 1 to 1024, given 1800"),
        ('parameters { key: "threads" value {} }', r"parameters\['threads'\]: expected one of intra_op_thread_count,"),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
            "expected a whole number, given 'many'",
        ),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "1025" } }',
            "expected a number from 0 to 1024, given 1025",
        ),
    ],
)
def test_read_config_with_wrong_value_says_what_was_expected(tmp_path, text, expected):
    """The text names the field, what it may be and what it is."""
    with pytest.raises(ModelConfigError, match=expected):
        read(tmp_path, text)


def test_read_config_of_unreadable_file_says_why(tmp_path):
    """Not text, too large, not there."""
    with pytest.raises(ModelConfigError, match="expected UTF-8, given another byte at position 7"):
        read(tmp_path, b'name: "\xff"')
    with pytest.raises(ModelConfigError, match=f"expected at most {MAX_FILE_BYTES} bytes"):
        read(tmp_path, "#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ModelConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.pbtxt", "digits")
