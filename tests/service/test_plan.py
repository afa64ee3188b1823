"""The plan of a deployment: which versions the gateway gets a cluster for, and who gets the traffic."""

import pytest

from service.plan import Plan, derive_deployment


def save_config(folder, text, versions=(1, 2, 10)):
    """A model of which only the folders and the configuration are looked at."""
    for version in versions:
        (folder / "models" / "digits" / str(version)).mkdir(parents=True)
    (folder / "models" / "digits" / "config.pbtxt").write_text(text)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("", {1: 0, 2: 0, 10: 100}),
        ("version_policy { latest { num_versions: 2 } }", {2: 0, 10: 100}),
        ("version_policy { specific { versions: [ 1, 2, 7 ] } }", {1: 0, 2: 100}),
        ("max_batch_size: many", {1: 0, 2: 0, 10: 100}),
    ],
)
def test_derive_deployment_takes_the_versions_that_serve(tmp_path, text, weights):
    """By the model's policy; one that is not there has no cluster, and what is wrong is for the service to say."""
    save_config(tmp_path, text)
    deployment = derive_deployment(Plan(model_repository=tmp_path / "models", state_folder=tmp_path))
    assert deployment.weights("digits") == weights


def describe_steps(*models):
    """An ensemble of steps, of whose tensors nobody asks here."""
    maps = "input_map { key: 'a' value: 'b' } output_map { key: 'c' value: 'd' }"
    steps = " ".join(f"step {{ model_name: '{model}' model_version: -1 {maps} }}" for model in models)
    tensors = " ".join(f"{kind} {{ name: 'x' data_type: TYPE_FP32 dims: [ 1 ] }}" for kind in ("input", "output"))
    return f"{tensors} ensemble_scheduling {{ {steps} }}"


def test_derive_deployment_knows_which_models_keep_sequences(tmp_path):
    """Those whose configuration says so, and ensembles with such a step: their calls are not sent again."""
    texts = {
        "sum": "sequence_batching { }",
        "plain": "max_batch_size: 8",
        "chain": describe_steps("plain", "sum"),
        "outer": describe_steps("chain"),
        "other": describe_steps("plain"),
        "broken": "sequence_batching: many",
    }
    for name, text in texts.items():
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "config.pbtxt").write_text(text)
    deployment = derive_deployment(Plan(model_repository=tmp_path / "models", state_folder=tmp_path))
    kept = {name for name in deployment.models if deployment.routing_of(name).keeps_sequences}
    assert kept == {"sum", "chain", "outer"}
    assert set(texts) == set(deployment.models)
