"""The demonstration's data and models, trained for real."""

import json

import numpy as np
import pytest

from kernels.session import Session, outputs_follow_batch
from service.demo.digits import TEST_SIZE, load_digits
from service.demo.training import MANIFEST_NAME, MODEL, ensure_models, predict
from service.model_config import MODEL_FILE


@pytest.fixture(scope="module")
def digits():
    """The split scans."""
    return load_digits()


@pytest.fixture(scope="module")
def repository(digits, tmp_path_factory):
    """A repository that the models were trained into."""
    folder = tmp_path_factory.mktemp("models")
    ensure_models(folder, digits, report=lambda _: None)
    return folder


def test_digits_split_is_the_same_each_time_and_shares_no_scan(digits):
    """1,797 scans in two parts without overlap, every digit in both."""
    again = load_digits()
    np.testing.assert_array_equal(again.held_out.images, digits.held_out.images)
    assert len(digits.training) + len(digits.held_out) == 1797
    assert len(digits.held_out) == TEST_SIZE
    assert set(digits.training.labels) == set(digits.held_out.labels) == set(range(10))
    training, held_out = ({image.tobytes() for image in part.images} for part in (digits.training, digits.held_out))
    assert not training & held_out


@pytest.mark.parametrize("number", [1, 2])
def test_models_have_the_declared_signature_and_one_batch_dimension(repository, number):
    """The server can give their outputs buffers of its own."""
    session = Session(str(repository / MODEL / str(number) / MODEL_FILE))
    specs = [(spec.name, spec.datatype, spec.shape) for spec in session.inputs + session.outputs]
    assert specs == [("input", "FP32", (-1, 64)), ("label", "INT64", (-1,)), ("probabilities", "FP32", (-1, 10))]
    assert outputs_follow_batch(session.inputs, session.outputs)


@pytest.mark.parametrize("number", [1, 2])
def test_manifest_says_what_the_exported_file_does(repository, digits, number):
    """The accuracy in it is that of the file on scans that it never saw, and it is a good one."""
    folder = repository / MODEL / str(number)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    labels = predict(folder / MODEL_FILE, digits.held_out.images)
    assert manifest["held_out_accuracy"] == np.mean(labels == digits.held_out.labels) > 0.95
    assert (manifest["training_scans"], manifest["held_out_scans"]) == (1797 - TEST_SIZE, TEST_SIZE)
    assert manifest["model_bytes"] == (folder / MODEL_FILE).stat().st_size


def test_ensure_models_trains_again_only_what_changed(repository, digits):
    """Nothing to do costs no training; a damaged model and a manifest of another recipe are made good."""
    reports = []
    first = ensure_models(repository, digits, reports.append)
    assert reports == []

    (repository / MODEL / "1" / MODEL_FILE).write_bytes(b"damaged")
    path = repository / MODEL / "2" / MANIFEST_NAME
    path.write_text(path.read_text().replace('"model_seed": 20', '"model_seed": 21'))
    again = ensure_models(repository, digits, reports.append)
    assert [report[:26] for report in reports] == ["training digits version 1:", "training digits version 2:"]
    assert [again[number].model_sha256 for number in (1, 2)] == [first[number].model_sha256 for number in (1, 2)]
