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
