"""sequence_batching as it is written: what is refused, by the field's name."""

import pytest

from service.config_text import ModelConfigError
from service.model_config import read_config

START = 'name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }'
ID = 'name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }'
STATE = 'input_name: "state" output_name: "new_state"'


def read(tmp_path, fields):
    """Read a configuration with these fields of sequence_batching."""
    path = tmp_path / "config.pbtxt"
    path.write_text(f"sequence_batching {{ {fields} }}")
    return read_config(path, "digits")


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "direct { max_queue_delay_microseconds: 100 minimum_slot_utilization: 0.5 }",
        "oldest { max_candidate_sequences: 4 preferred_batch_size: [2, 4] max_queue_delay_microseconds: 100 }",
        f"control_input {{ {START} }} control_input {{ {ID} }} state {{ {STATE} }}",
        f"state {{ {STATE} data_type: TYPE_FP32 dims: [3, -1] initial_state {{ zero_data: true dims: [3, 2] }} }}",
        f'state {{ {STATE} initial_state {{ name: "first" data_type: TYPE_FP32 data_file: "first" }} }}',
    ],
)
def test_read_config_takes_what_triton_takes(tmp_path, fields):
    """All of it has an effect."""
    assert read(tmp_path, fields).without_effect == ()


def test_read_config_names_what_has_no_effect(tmp_path):
    """Nothing that an answer depends on."""
    state = f"state {{ {STATE} use_same_buffer_for_input_output: true use_growable_memory: true }}"
    assert set(read(tmp_path, state).without_effect) == {
        "sequence_batching.state.use_same_buffer_for_input_output",
        "sequence_batching.state.use_growable_memory",
    }


def refuse_control(control):
    """Fields with a control that is refused."""
    return f'control_input {{ name: "x" control {{ {control} }} }}'


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ("iterative_sequence: true", "sequence_batching.iterative_sequence: this server does not read the field"),
        (
            "max_sequence_idle_microseconds: 1000000000001",
            "max_sequence_idle_microseconds: expected a number from 0 to 1000000000000, given 1000000000001",
        ),
        ("direct { max_queue_delay_microseconds: 10000001 }", "direct.max_queue_delay_microseconds: expected a number"),
        ("direct { minimum_slot_utilization: 1.5 }", "direct.minimum_slot_utilization: expected 0 to 1, given 1.5"),
        ("direct { minimum_slot_utilization: nan }", "direct.minimum_slot_utilization: expected 0 to 1, given nan"),
        ("oldest {}", "oldest.max_candidate_sequences: expected a number from 1 to"),
        ("oldest { max_candidate_sequences: -1 }", "oldest.max_candidate_sequences: expected a number from 1 to"),
        (
            "oldest { max_candidate_sequences: 1 max_queue_delay_microseconds: 10000001 }",
            "oldest.max_queue_delay_microseconds: expected a number",
        ),
        ("control_input { control {} }", r"control_input\[0\].name: expected the name of an input, given none"),
        ('control_input { name: "x" }', r"control_input\[0\].control: expected one, given 0"),
        ('control_input { name: "x" control {} control {} }', r"control_input\[0\].control: expected one, given 2"),
        (refuse_control("kind: CONTROL_SEQUENCE_END"), r"control_input\[0\].control\[0\]: expected two values"),
        (refuse_control("int32_false_true: [1]"), r"control_input\[0\].control\[0\]: expected two values"),
        (
            refuse_control("int32_false_true: [0, 1] fp32_false_true: [0, 1]"),
            r"control_input\[0\].control\[0\]: expected two values",
        ),
        (
            refuse_control("kind: CONTROL_SEQUENCE_CORRID"),
            r"control_input\[0\].control\[0\].data_type: expected one of TYPE_UINT64, .*, given TYPE_INVALID",
        ),
        (refuse_control("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32"), "given TYPE_FP32"),
        (
            refuse_control("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 int32_false_true: [0, 1]"),
            r"control_input\[0\].control\[0\].int32_false_true: expected none for an id",
        ),
        (
            f"control_input {{ {START} }} control_input {{ {START.replace('start', 'again')} }}",
            "control_input: expected one CONTROL_SEQUENCE_START, given several",
        ),
        (
            f"control_input {{ {START} }} control_input {{ {ID.replace('id', 'start')} }}",
            "expected an input in one control or state, given 'start' in several",
        ),
        ('state { output_name: "y" }', r"state\[0\].input_name: expected the name of a tensor, given none"),
        ('state { input_name: "x" }', r"state\[0\].output_name: expected the name of a tensor, given none"),
        (
            f'state {{ {STATE} }} state {{ input_name: "other" output_name: "new_state" }}',
            "expected an output in one control or state, given 'new_state' in several",
        ),
        (
            f"state {{ {STATE} initial_state {{ zero_data: true }} initial_state {{ zero_data: true }} }}",
            r"state\[0\].initial_state: expected at most one, given 2",
        ),
        (
            f"state {{ {STATE} initial_state {{ dims: [3] }} }}",
            r"state\[0\].initial_state\[0\]: expected zero_data or data_file, given none",
        ),
        (
            f"state {{ {STATE} initial_state {{ zero_data: false }} }}",
            r"state\[0\].initial_state\[0\].zero_data: expected true, or a data_file",
        ),
    ],
)
def test_read_config_refuses_by_the_name_of_the_field(tmp_path, fields, text):
    """Whatever cannot be meant."""
    with pytest.raises(ModelConfigError, match=text):
        read(tmp_path, fields)


def test_sequences_and_dynamic_batching_exclude_each_other(tmp_path):
    """As the fields of one choice do."""
    path = tmp_path / "config.pbtxt"
    path.write_text("dynamic_batching {} sequence_batching {}")
    with pytest.raises(ModelConfigError, match="sequence_batching"):
        read_config(path, "digits")


def test_model_that_keeps_sequences_has_no_response_cache(tmp_path):
    """As with Triton; said with the fields' names."""
    path = tmp_path / "config.pbtxt"
    path.write_text("sequence_batching { } response_cache { enable: true }")
    with pytest.raises(ModelConfigError, match=r"response_cache\.enable: expected false with sequence_batching"):
        read_config(path, "digits")
    path.write_text("sequence_batching { } response_cache { enable: false }")
    assert read_config(path, "digits").proto.HasField("sequence_batching")
