"""service.ensemble_fields and service.ensemble_config: what an ensemble's configuration says, and must not."""

import re

import pytest
from ensemble_folders import describe_chain, describe_step, describe_tensor

from service.config_text import ModelConfigError
from service.ensemble_config import complete_ensemble, list_step_models, list_steps, make_ensemble
from service.model_config import read_config, read_override

INPUT = f"input {{ {describe_tensor('input')} }}"
OUTPUT = f"output {{ {describe_tensor('output')} }}"


def read(tmp_path, text):
    """A configuration of the model `chain`."""
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    return read_config(path, "chain")


def test_ensemble_is_completed_from_what_is_written(tmp_path):
    """Shapes have the batch in front; what is left out is filled in as Triton has it."""
    written = read(tmp_path, describe_chain("a", "b", "a"))
    config = complete_ensemble("chain", written)
    assert written.is_ensemble
    assert [(spec.name, spec.datatype, spec.shape) for spec in (*config.inputs, *config.outputs)] == [
        ("input", "FP32", (-1, 4)),
        ("output", "FP32", (-1, 4)),
    ]
    assert (config.proto.name, config.proto.platform, config.proto.backend) == ("chain", "ensemble", "")
    assert config.proto.version_policy.HasField("all")
    assert not config.proto.HasField("dynamic_batching")
    assert list_step_models(config.proto) == ["a", "b"]
    assert [(step.model, step.version, step.inputs) for step in list_steps(config.proto)] == [
        ("a", -1, {"input": "input"}),
        ("b", -1, {"input": "between_1"}),
        ("a", -1, {"input": "between_2"}),
    ]
    assert len(make_ensemble(config, tmp_path).steps) == 3


def test_ensemble_without_max_batch_size_has_no_batch(tmp_path):
    """Silence is 0: there is no model file that could tell."""
    written = read(tmp_path, f"{INPUT} {OUTPUT} ensemble_scheduling {{ {describe_step('a', 'input', 'output')} }}")
    config = complete_ensemble("chain", written)
    assert (config.max_batch_size, config.inputs[0].shape) == (0, (4,))


def test_model_is_no_ensemble(tmp_path):
    """Without ensemble_scheduling there are no steps."""
    written = read(tmp_path, "max_batch_size: 8")
    assert not written.is_ensemble
    assert list_steps(written.proto) == list_step_models(written.proto) == []


def test_ensemble_of_json_is_read_too():
    """As a load by a client brings it."""
    step = '{"modelName": "a", "modelVersion": "-1", "inputMap": {"x": "input"}, "outputMap": {"y": "output"}}'
    tensor = '[{"name": "%s", "dataType": "TYPE_FP32", "dims": ["4"]}]'
    text = f'{{"ensembleScheduling": {{"step": [{step}]}}, "input": {tensor % "input"}, "output": {tensor % "output"}}}'
    assert list_step_models(read_override(text, "chain").proto) == ["a"]


def test_limit_of_requests_at_a_step_is_named_as_without_effect(tmp_path):
    """A caller's request is at a step once in any case."""
    step = describe_step("a", "input", "output")
    written = read(tmp_path, f"{INPUT} {OUTPUT} ensemble_scheduling {{ max_inflight_requests: 3 {step} }}")
    assert written.without_effect == ("ensemble_scheduling.max_inflight_requests",)


NAMELESS = 'input_map { key: "x" }'
STEP = describe_step("a", "input", "output")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'platform: "onnxruntime_onnx" ensemble_scheduling {}',
            "platform: expected 'ensemble' with ensemble_scheduling, given 'onnxruntime_onnx'",
        ),
        ('platform: "ensemble"', "ensemble_scheduling: expected the steps of the ensemble, given none"),
        ('backend: "onnxruntime" ensemble_scheduling {}', "backend: an ensemble has none"),
        ("instance_group { count: 2 } ensemble_scheduling {}", "instance_group: an ensemble has none"),
        ('default_model_filename: "a" ensemble_scheduling {}', "default_model_filename: an ensemble has none"),
        ("model_warmup { count: 1 } ensemble_scheduling {}", "model_warmup: an ensemble has none"),
        (f"{OUTPUT} ensemble_scheduling {{ {STEP} }}", "input: expected every input of the ensemble, given none"),
        (f"{INPUT} ensemble_scheduling {{ {STEP} }}", "output: expected every output of the ensemble, given none"),
        (f"{INPUT} {INPUT} {OUTPUT} ensemble_scheduling {{}}", "input[1].name: expected a name, each once"),
        ('input { name: "x" dims: 4 } ensemble_scheduling {}', "input[0].data_type: expected the datatype, given none"),
        (
            'input { name: "x" data_type: TYPE_FP32 } ensemble_scheduling {}',
            "input[0].dims: expected the dimensions, given none",
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 0 } ensemble_scheduling {}',
            "input[0].dims: expected numbers of at least 1, or -1, given [0]",
        ),
        (
            f"{INPUT} output {{ {describe_tensor('y')} reshape {{ shape: 4 }} }} ensemble_scheduling {{}}",
            "output[0].reshape: an ensemble has none",
        ),
        (
            f"{INPUT} {OUTPUT} ensemble_scheduling {{ step {{ model_version: -1 }} }}",
            "ensemble_scheduling.step[0].model_name: expected the name of a model, given nothing",
        ),
        (
            f'{INPUT} {OUTPUT} ensemble_scheduling {{ {STEP} step {{ model_name: "b" }} }}',
            "ensemble_scheduling.step[1].model_version: expected a version, or -1 for the highest, given 0",
        ),
        (
            f'{INPUT} {OUTPUT} ensemble_scheduling {{ step {{ model_name: "b" model_version: 1 {NAMELESS} }} }}',
            "ensemble_scheduling.step[0].input_map: expected the model's name of a tensor as key",
        ),
    ],
)
def test_ensemble_that_says_too_much_or_too_little_is_refused_by_field(tmp_path, text, complaint):
    """Each with what was expected."""
    with pytest.raises(ModelConfigError, match=re.escape(f"config.pbtxt: {complaint}")):
        read(tmp_path, text)


def test_ensemble_with_batches_of_its_own_is_refused(tmp_path):
    """Its steps have them; the two are choices of one."""
    with pytest.raises(ModelConfigError, match="ensemble_scheduling"):
        read(tmp_path, f"dynamic_batching {{}} {INPUT} {OUTPUT} ensemble_scheduling {{ {STEP} }}")


def test_datatype_that_is_none_is_refused(tmp_path):
    """One of another release, by its number."""
    text = describe_chain("a").replace("TYPE_FP32", "99", 1)
    with pytest.raises(ModelConfigError):
        complete_ensemble("chain", read(tmp_path, text))
