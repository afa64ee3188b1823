"""How a model keeps sequences: the configuration completed from the model file, and the rules that the kernels get."""

import numpy as np
import onnx_models
import pytest
from inference_messages import build_turn, decode_reply

from kernels.engine import Engine
from kernels.session import Session, TensorSpec
from service.config_text import ModelConfigError
from service.model_config import read_config
from service.model_folders import ModelFolder, ModelFolderError
from service.model_plan import plan_model
from service.sequence_plan import ControlPlan, StatePlan
from service.sequence_rules import make_sequence_rules, read_first_state
from service.serving_config import complete_config
from service.version_loader import VersionLoader

INPUTS = (
    TensorSpec("start", "INT32", (-1, 1), ("N", "")),
    TensorSpec("x", "FP32", (-1, 4), ("N", "")),
    TensorSpec("id", "UINT64", (-1, 1), ("N", "")),
    TensorSpec("state", "FP32", (-1, -1, 3), ("N", "", "")),
)
OUTPUTS = (TensorSpec("new_state", "FP32", (-1, -1, -1), ("N", "", "")), TensorSpec("y", "FP32", (-1, 4), ("N", "")))
START = 'control_input { name: "start" control { int32_false_true: [3, 4] } }'
ID = 'control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }'
STATE = 'state { input_name: "state" output_name: "new_state" %s }'
ALL = f"{START} {ID} {STATE % ''}"


def complete(tmp_path, fields=ALL, rest="max_batch_size: 6", inputs=INPUTS, outputs=OUTPUTS):
    """Complete a configuration with these fields of sequence_batching."""
    path = tmp_path / "config.pbtxt"
    path.write_text(f"{rest} sequence_batching {{ {fields} }}")
    return complete_config("digits", read_config(path, "digits"), inputs, outputs, 64)


def test_complete_config_hides_what_is_the_server_s(tmp_path):
    """Callers see the rest; the session keeps its order."""
    config = complete(tmp_path)
    assert (config.inputs, config.outputs) == ((INPUTS[1],), (OUTPUTS[1],))
    assert [len(config.input_shapes), len(config.model_inputs), len(config.label_files)] == [4, 4, 2]
    assert not config.is_reshaped
    assert [tensor.name for tensor in (*config.proto.input, *config.proto.output)] == ["x", "y"]
    assert config.sequences.controls == (
        ControlPlan("start", "start", "INT32", np.int32(3).tobytes(), np.int32(4).tobytes()),
        ControlPlan("id", "id", "UINT64"),
    )
    [state] = config.sequences.states
    assert (state.input, state.output, state.datatype, state.shape) == ("state", "new_state", "FP32", (1, 3))


def test_complete_config_says_what_was_left_out(tmp_path):
    """Triton's defaults: a second of silence, and a slot for each row."""
    config = complete(tmp_path)
    given = config.proto.sequence_batching
    assert (given.max_sequence_idle_microseconds, given.HasField("direct")) == (1_000_000, True)
    assert list(given.state[0].dims) == [-1, 3]
    assert not config.proto.HasField("dynamic_batching")
    assert (config.sequences.slots, config.sequences.idle_us, config.queue_delay_us) == (6, 1_000_000, 0)


def test_state_output_that_is_listed_is_shown(tmp_path):
    """As with Triton."""
    config = complete(tmp_path, rest='max_batch_size: 6 output { name: "new_state" }')
    assert [spec.name for spec in config.outputs] == ["new_state", "y"]
    assert config.sequences.shown == {"new_state"}


@pytest.mark.parametrize(
    ("fields", "rest", "expected"),
    [
        ("", "max_batch_size: 6", (6, 0, 0)),
        ("", "max_batch_size: 6 instance_group { count: 2 }", (12, 0, 0)),
        ("direct { max_queue_delay_microseconds: 9 }", "max_batch_size: 6", (6, 0, 0)),
        (
            "direct { max_queue_delay_microseconds: 9 minimum_slot_utilization: 0.4 }",
            "max_batch_size: 6",
            (6, 9, 3),
        ),
        ("oldest { max_candidate_sequences: 20 max_queue_delay_microseconds: 9 }", "max_batch_size: 6", (20, 9, 0)),
        (
            "oldest { max_candidate_sequences: 20 preferred_batch_size: [4, 2] max_queue_delay_microseconds: 9 }",
            "max_batch_size: 6 instance_group { count: 2 }",
            (40, 9, 2),
        ),
    ],
)
def test_strategies_say_how_many_sequences_and_how_long_to_wait(tmp_path, fields, rest, expected):
    """A slot for each row, or as many candidates as are asked for, each for every instance."""
    config = complete(tmp_path, fields, rest)
    assert (config.sequences.slots, config.queue_delay_us, config.sequences.enough_rows) == expected


def test_instances_of_several_devices_have_slots_each(tmp_path):
    """A group's count is for each of its GPUs."""
    path = tmp_path / "config.pbtxt"
    path.write_text(f"max_batch_size: 6 sequence_batching {{ {ALL} }}")
    config = complete_config("digits", read_config(path, "digits"), INPUTS, OUTPUTS, 64, instances=3)
    assert config.sequences.slots == 18


@pytest.mark.parametrize(("preserved", "kept"), [("true", True), ("false", False)])
def test_order_of_all_sequences_is_kept_when_asked_for(tmp_path, preserved, kept):
    """As that of requests without sequences."""
    config = complete(tmp_path, f"{ALL} oldest {{ max_candidate_sequences: 2 preserve_ordering: {preserved} }}")
    assert config.queueing.keeps_order is kept


def test_model_without_batch_has_one_slot_and_waits_for_nothing(tmp_path):
    """And its states have no batch dimension."""
    specs = [TensorSpec("state", "FP32", (4,), ("",)), TensorSpec("new_state", "FP32", (4,), ("",))]
    config = complete(tmp_path, STATE % "", "max_batch_size: 0", specs[:1], specs[1:])
    assert (config.sequences.slots, config.queue_delay_us, config.sequences.is_batched) == (1, 0, False)
    assert config.sequences.states[0].shape == (4,)


@pytest.mark.parametrize(
    ("fields", "rest", "text"),
    [
        (START.replace('"start"', '"begin"'), "", r"control_input\[0\]: expected an input .*, given 'begin'"),
        (
            START.replace("int32", "fp32"),
            "",
            "input 'start' has data type TYPE_INT32 in the model file, given TYPE_FP32",
        ),
        (
            ID.replace("UINT64", "STRING"),
            "",
            "input 'id' has data type TYPE_UINT64 in the model file, given TYPE_STRING",
        ),
        (ID.replace('"id"', '"x"').replace("UINT64", "INT32"), "", "input 'x' has data type TYPE_FP32"),
        (
            START.replace('"start"', '"x"').replace("int32", "fp32"),
            "",
            r"control_input\[0\].name: expected an input with one element for each request, given 'x'",
        ),
        (STATE.replace('"state"', '"s"') % "", "", r"state\[0\].input_name: expected an input of the model, .*'s'"),
        (STATE.replace("new_", "n") % "", "", r"state\[0\].output_name: expected an output of the model, .*'nstate'"),
        (STATE.replace('"state"', '"start"') % "", "", "output 'new_state' has data type TYPE_FP32"),
        (
            STATE % "data_type: TYPE_INT8",
            "",
            "input 'state' has data type TYPE_FP32 in the model file, given TYPE_INT8",
        ),
        (STATE % "dims: [2]", "", r"state\[0\].dims: expected \[-1, 3\], as input 'state' has, without a batch"),
        (STATE % "dims: [2, 4]", "", r"state\[0\].dims: expected \[-1, 3\]"),
        (
            STATE % "initial_state { zero_data: true dims: [2, 4] }",
            "",
            r"initial_state\[0\].dims: expected \[-1, 3\], as the state has",
        ),
        (
            STATE % "initial_state { zero_data: true dims: [-1, 3] }",
            "",
            r"initial_state\[0\].dims: expected fixed ones",
        ),
        (
            STATE % "initial_state { zero_data: true data_type: TYPE_FP16 }",
            "",
            r"initial_state\[0\].data_type: expected",
        ),
        (
            "oldest { max_candidate_sequences: 1 preferred_batch_size: 7 }",
            "",
            "oldest.preferred_batch_size: .* given 7",
        ),
        (ALL, 'input { name: "state" }', r"input\[0\].name: expected one of x, given 'state'"),
    ],
)
def test_complete_config_refuses_what_contradicts_the_model(tmp_path, fields, rest, text):
    """By the name of the field, with what was expected."""
    with pytest.raises(ModelConfigError, match=text):
        complete(tmp_path, fields, f"max_batch_size: 6 {rest}")


def test_state_whose_output_is_no_input_of_it_is_refused(tmp_path):
    """Though the configuration leaves open what the model has fixed."""
    specs = [TensorSpec("state", "FP32", (4,), ("",)), TensorSpec("new_state", "FP32", (3,), ("",))]
    with pytest.raises(
        ModelConfigError, match=r"state\[0\].output_name: expected \[4\], as input 'state' has, .* \[3\]"
    ):
        complete(tmp_path, STATE % "dims: [-1]", "max_batch_size: 0", specs[:1], specs[1:])
    specs[1] = specs[1]._replace(shape=(4,))
    fields = STATE % "dims: [-1] initial_state { zero_data: true dims: [5] }"
    with pytest.raises(ModelConfigError, match=r"initial_state\[0\].dims: expected \[4\], as the state has"):
        complete(tmp_path, fields, "max_batch_size: 0", specs[:1], specs[1:])


# ---- first states from files


def make_rules(folder, state):
    """The rules of an accumulator with one state."""
    session = Session(onnx_models.save(onnx_models.accumulator(), folder / "models"))
    config = complete(
        folder,
        f'state {{ input_name: "state" output_name: "new_state" {state} }}',
        inputs=session.inputs,
        outputs=session.outputs,
    )
    return make_sequence_rules(session, config.sequences, ModelFolder("digits", folder))


@pytest.mark.parametrize(
    ("content", "name", "text"),
    [
        (bytes(15), "first", r"initial_state\[0\].data_file: expected 16 bytes, given 15 in first"),
        (bytes(16), "second", "second is missing"),
        (bytes(16), "../config.pbtxt", "leads out of its folder"),
    ],
)
def test_first_state_that_cannot_be_used_is_refused(tmp_path, content, name, text):
    """By its field and its file."""
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state" / "first").write_bytes(content)
    with pytest.raises((ModelConfigError, ModelFolderError), match=text):
        make_rules(tmp_path, f'initial_state {{ data_file: "{name}" }}')


def test_first_state_of_texts_is_checked(tmp_path):
    """Each behind its length, as many as there are elements."""
    (tmp_path / "initial_state").mkdir()
    file = tmp_path / "initial_state" / "first"
    state = StatePlan("here", "state", "new_state", "BYTES", (2,), "first")
    for content in (b"", b"\1\0\0\0a", b"\1\0\0\0a\1\0\0\0", b"\0\0\0\0\0\0\0\0x", b"\0" * 12):
        file.write_bytes(content)
        with pytest.raises(ModelConfigError, match="expected 2 texts, each behind its length"):
            read_state(tmp_path, state)
    file.write_bytes(b"\1\0\0\0a\0\0\0\0")
    assert read_state(tmp_path, state) == file.read_bytes()


def read_state(folder, state):
    """The first elements of a state, from a model's folder."""
    return read_first_state(state, ModelFolder("digits", folder))


# ---- loaded by a server


FIRST = 'initial_state { data_file: "first" }'
WARMUP = 'model_warmup { %s inputs { key: "input" value { data_type: TYPE_INT64 dims: 2 random_data: true } } }'


def write_sum(state="", rest=""):
    """The configuration of an accumulator."""
    return f'{rest} sequence_batching {{ state {{ input_name: "state" output_name: "new_state" {state} }} }}'


@pytest.fixture
def engine():
    """An engine that is closed after the test."""
    made = Engine()
    yield made
    made.close()


def load(engine, folder, config):
    """Load an accumulator from a folder, as a server does."""
    path = onnx_models.save(onnx_models.accumulator(), folder, "sum", config=config)
    plan = plan_model(ModelFolder("sum", folder / "sum", {1: path.parent}))
    prepared = VersionLoader(engine, 64).prepare(plan, 1)
    engine.retire(engine.exchange({("sum", 1): prepared.handle}))
    return plan


def add(engine, sequence, value, **flags):
    """The sums of a sequence after another number."""
    request = build_turn("sum", {"input": np.array([[value, value]], np.int64)}, sequence, **flags)
    return decode_reply(engine.infer(request.SerializeToString()))["output"].tolist()


def test_load_keeps_sequences_as_configured(engine, tmp_path):
    """With a first state from a file."""
    (tmp_path / "sum" / "initial_state").mkdir(parents=True)
    (tmp_path / "sum" / "initial_state" / "first").write_bytes(np.array([10, 20], np.int64).tobytes())
    load(engine, tmp_path, write_sum(FIRST, "max_batch_size: 4"))
    assert add(engine, 1, 1, start=True) == [[11, 21]]
    assert add(engine, 1, 1, end=True) == [[12, 22]]


def test_changed_first_state_is_another_model(engine, tmp_path):
    """What a version is made of has its files of states."""
    (tmp_path / "sum" / "initial_state").mkdir(parents=True)
    file = tmp_path / "sum" / "initial_state" / "first"
    file.write_bytes(bytes(16))
    plan = load(engine, tmp_path, write_sum(FIRST))
    before = plan.list_makings(1)
    file.unlink()
    file.write_bytes(bytes(range(16)))
    assert plan.list_makings(1) != before


def test_warmup_runs_as_a_sequence_of_its_own(engine, tmp_path):
    """What it gives for states and controls is the server's; nothing of it is left."""
    load(engine, tmp_path, write_sum(rest=WARMUP % ""))
    assert engine.statistics("sum", 1)["sequences"] == 0
    with pytest.raises(ModelConfigError, match=r"model_warmup\[0\].batch_size: expected at most 1, given 2"):
        load(engine, tmp_path, write_sum(rest=WARMUP % "batch_size: 2"))
