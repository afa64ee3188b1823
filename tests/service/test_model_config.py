"""config.pbtxt as it is written: what is read, what is refused, and where a text error is."""

import pytest

from service.config_text import MAX_FILE_BYTES, ModelConfigError
from service.model_config import read_config, read_override

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
parameters { key: "enable_mem_arena" value { string_value: "0" } }
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
    assert (written.intra_op_threads, written.inter_op_threads, written.uses_arena) == (3, 2, False)
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
        ("sequence_batching { iterative_sequence: true }", "sequence_batching.iterative_sequence"),
        ('ensemble_scheduling { step { model_namespace: "a" } }', "ensemble_scheduling.step.model_namespace"),
        ("input { is_shape_tensor: true }", "input.is_shape_tensor"),
        ("output { is_shape_tensor: true }", "output.is_shape_tensor"),
        ("optimization { graph { level: 1 } }", "optimization.graph"),
        (
            "optimization { cuda { graph_spec { graph_lower_bound { batch_size: 1 } } } }",
            "optimization.cuda.graph_spec.graph_lower_bound",
        ),
        ("instance_group { passive: true }", "instance_group.passive"),
        ('instance_group { profile: ["a"] }', "instance_group.profile"),
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
            'parameters { key: "enable_mem_arena" value { string_value: "no" } }',
            r"parameters\['enable_mem_arena'\]: expected 0 or 1, given 'no'",
        ),
        ("version_policy { specific {} }", "version_policy.specific.versions: expected version numbers, given none"),
        (
            "version_policy { specific { versions: [ 3, 0 ] } }",
            f"version_policy.specific.versions: expected numbers from 1 to {10**18 - 1}, given 0",
        ),
        (
            'parameters { key: "version_labels" value { string_value: "stable:3" } }',
            r"parameters\['version_labels'\]: expected NAME=VERSION.* given 'stable:3'",
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


def test_read_config_with_fields_without_effect_names_them(tmp_path):
    """A repository of Triton's need not be edited for what changes no answer; who reads the log knows."""
    written = read(
        tmp_path,
        """metric_tags { key: "team" value: "a" }
        input { name: "x" format: FORMAT_NCHW }
        instance_group { name: "first" count: 2 }
        optimization {
          priority: PRIORITY_MAX input_pinned_memory { enable: true }
          cuda { busy_wait_events: true output_copy_stream: true }
        }""",
    )
    assert set(written.without_effect) == {
        "metric_tags",
        "input.format",
        "instance_group.name",
        "optimization.priority",
        "optimization.cuda.busy_wait_events",
        "optimization.cuda.output_copy_stream",
        "optimization.input_pinned_memory",
    }
    assert written.instance_count == 2


def test_read_config_with_file_name_and_labels_gives_them(tmp_path):
    """Where a version's file lies, and what its versions are called."""
    text = """default_model_filename: "net.onnx"
        parameters { key: "version_labels" value { string_value: "stable=3, canary=4" } }"""
    written = read(tmp_path, text)
    assert (written.model_file, written.labels) == ("net.onnx", {"stable": 3, "canary": 4})
    assert (read(tmp_path, "").model_file, read(tmp_path, "").labels) == ("model.onnx", {})


def test_read_override_takes_the_json_of_tritons_clients():
    """Names as in the file or in camelCase, numbers of 64 bits as text or as numbers."""
    text = """{"name": "digits", "maxBatchSize": 4, "version_policy": {"specific": {"versions": ["2", 3]}},
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["64"]}]}"""
    written = read_override(text, "digits")
    assert written.max_batch_size == 4
    assert list(written.proto.version_policy.specific.versions) == [2, 3]
    assert list(written.proto.input[0].dims) == [64]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "config: is not the JSON of a ModelConfig"),
        ("[]", "config: expected a JSON object"),
        ('{"max_batch_sizes": 1}', "config: is not the JSON of a ModelConfig: .*max_batch_sizes"),
        (
            '{"sequence_batching": {"iterative_sequence": true}}',
            "sequence_batching.iterative_sequence: this server does not read the field",
        ),
        ('{"name": "other"}', "name: expected 'digits' or nothing, given 'other'"),
        ('{"input":' + "[" * 100_000, "config: is not the JSON of a ModelConfig"),
        (" " * (MAX_FILE_BYTES + 1), "config: expected at most"),
    ],
)
def test_read_override_with_wrong_json_says_what_is_wrong(text, expected):
    """It is checked as the file is."""
    with pytest.raises(ModelConfigError, match=expected):
        read_override(text, "digits")


def test_read_config_of_unreadable_file_says_why(tmp_path):
    """Not text, too large, not there."""
    with pytest.raises(ModelConfigError, match="expected UTF-8, given another byte at position 7"):
        read(tmp_path, b'name: "\xff"')
    with pytest.raises(ModelConfigError, match=f"expected at most {MAX_FILE_BYTES} bytes"):
        read(tmp_path, "#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ModelConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.pbtxt", "digits")
