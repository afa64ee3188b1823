"""Weights that were set for good come back with the next start, as long as they fit."""

import pytest

from service.deployment import Deployment, Endpoint, Version, assign_weights
from service.gateway import RUNTIME_FILE
from service.lasting_weights import apply_lasting_weights, save_weights


def make_deployment(folder, versions, model="digits"):
    """A deployment that weighs the versions as nobody chose."""
    servers = (Endpoint("127.0.0.1", 8001),)
    return Deployment(
        models={model: {number: Version(weight, servers) for number, weight in assign_weights(versions).items()}},
        gateway=Endpoint("127.0.0.1", 8443),
        operator=Endpoint("127.0.0.1", 9443),
        certificates=folder,
    )


@pytest.fixture
def folder(tmp_path):
    """A state folder in which 90 to 10 was set for good."""
    (tmp_path / "envoy").mkdir()
    save_weights(make_deployment(tmp_path, [1, 2]).with_weights("digits", {1: 90, 2: 10}), tmp_path)
    return tmp_path


def test_apply_lasting_weights_with_same_versions_takes_them(folder):
    """The file's weights replace those that nobody chose."""
    assert apply_lasting_weights(make_deployment(folder, [1, 2]), folder).weights("digits") == {1: 90, 2: 10}


@pytest.mark.parametrize("versions", [[1], [1, 2, 3], [2, 3]])
def test_apply_lasting_weights_with_other_versions_leaves_the_default(folder, versions):
    """Nobody has weighed these against each other."""
    deployment = make_deployment(folder, versions)
    assert apply_lasting_weights(deployment, folder) == deployment


def test_apply_lasting_weights_of_a_model_whose_name_begins_alike_leaves_the_default(folder):
    """The weights of `digits` are not those of `digit`."""
    deployment = make_deployment(folder, [1, 2], model="digit")
    assert apply_lasting_weights(deployment, folder) == deployment


@pytest.mark.parametrize("content", [None, "", "resources: []", "{", "resources: [{layer: 3}]"])
def test_apply_lasting_weights_without_a_proper_file_leaves_the_default(folder, content):
    """A missing or broken file is as good as none."""
    if content is None:
        (folder / RUNTIME_FILE).unlink()
    else:
        (folder / RUNTIME_FILE).write_text(content)
    deployment = make_deployment(folder, [1, 2])
    assert apply_lasting_weights(deployment, folder) == deployment


@pytest.mark.parametrize("weight", ["-1", "many", "1.5", "0"])
def test_apply_lasting_weights_with_weights_that_cannot_be_leaves_the_default(folder, weight):
    """A file that was edited by hand cannot stop the start."""
    text = (folder / RUNTIME_FILE).read_text().replace("90", weight).replace("10", "0")
    (folder / RUNTIME_FILE).write_text(text)
    deployment = make_deployment(folder, [1, 2])
    assert apply_lasting_weights(deployment, folder) == deployment
