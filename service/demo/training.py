"""Trains the demonstration's two models and puts them into a repository, each with a manifest that says what it is."""

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from certs.files import replace_file
from service.client import build_request, read_response
from service.demo.digits import SIDE, SPLIT_SEED, DemoError, Digits, Scans, missing_extra
from service.model_config import MODEL_FILE
from service.pb import open_inference_pb2 as messages

MODEL = "digits"
MANIFEST_NAME = "manifest.json"
# Known to every ONNX Runtime from 1.12 on.
OPSET = 17
MODEL_SEED = 20
LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "numpy")
DESCRIPTIONS = {
    1: "logistic regression on standardized pixels",
    2: "neural network 64-256-10 with ReLU on standardized pixels",
}
# The export computes in single precision: a scan on the border between two digits may fall to the other side.
LEAST_AGREEMENT = 0.99


@dataclass(frozen=True)
class Recipe:
    """All that a model follows from; a model of another recipe is trained anew."""

    description: str
    opset: int
    model_seed: int
    split_seed: int
    libraries: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """What lies beside a model.

    Attributes
    ----------
    held_out_accuracy
        Share of the held-out scans that the exported file gets right, run by the server's own engine.
    model_sha256
        Of the model's file, in hexadecimal.
    """

    recipe: Recipe
    training_scans: int
    held_out_scans: int
    held_out_accuracy: float
    model_bytes: int
    model_sha256: str
    trained_at: str


def ensure_models(repository: Path, digits: Digits, report: Callable[[str], None]) -> dict[int, Manifest]:
    """Train and export each version that is missing, changed or of another recipe; leave the others as they are.

    Parameters
    ----------
    report
        Told what is being done before it takes its time.

    Returns
    -------
    dict of int to Manifest
        By version number.

    Raises
    ------
    DemoError
        A package is missing, or an export does not do what the model did.
    """
    return {number: _ensure_version(repository, number, digits, report) for number in DESCRIPTIONS}


def _ensure_version(repository: Path, number: int, digits: Digits, report: Callable[[str], None]) -> Manifest:
    folder = repository / MODEL / str(number)
    try:
        recipe = describe_recipe(number)
    except PackageNotFoundError as error:
        raise missing_extra(ImportError(name=error.name)) from None
    manifest = read_manifest(folder)
    if manifest is not None and manifest.recipe == recipe and _has_hash(folder / MODEL_FILE, manifest.model_sha256):
        return manifest
    report(f"training {MODEL} version {number}: {recipe.description}")
    return _make_version(folder, number, recipe, digits)


def describe_recipe(number: int) -> Recipe:
    """The recipe of a version with the libraries as they are installed; PackageNotFoundError for one that is not."""
    libraries = {library: version(library) for library in LIBRARIES}
    return Recipe(DESCRIPTIONS[number], OPSET, MODEL_SEED, SPLIT_SEED, libraries)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a version's folder; None where there is none that can be read."""
    try:
        fields = json.loads((folder / MANIFEST_NAME).read_bytes())
        return Manifest(**fields | {"recipe": Recipe(**fields["recipe"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _make_version(folder: Path, number: int, recipe: Recipe, digits: Digits) -> Manifest:
    estimator = _train(number, digits.training)
    model = _export(estimator, f"{MODEL} version {number}: {recipe.description}")
    folder.mkdir(parents=True, exist_ok=True)
    # The manifest comes last: without the one that fits, the model beside it does not count.
    replace_file(folder / MODEL_FILE, model)
    predicted = predict(folder / MODEL_FILE, digits.held_out.images)
    agreement = np.mean(predicted == estimator.predict(digits.held_out.images))
    if agreement < LEAST_AGREEMENT:
        raise DemoError(f"{folder / MODEL_FILE}: agrees with what was trained on {agreement:.1%} of the scans only")
    manifest = Manifest(
        recipe=recipe,
        training_scans=len(digits.training),
        held_out_scans=len(digits.held_out),
        held_out_accuracy=float(np.mean(predicted == digits.held_out.labels)),
        model_bytes=len(model),
        model_sha256=hashlib.sha256(model).hexdigest(),
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    replace_file(folder / MANIFEST_NAME, json.dumps(asdict(manifest), indent=2).encode() + b"\n")
    return manifest


def _train(number: int, scans: Scans) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    classifiers = {
        1: LogisticRegression(max_iter=1000),
        # By cross-validation within the training part, better than 64 or 128 hidden units.
        2: MLPClassifier((256,), max_iter=300, random_state=MODEL_SEED),
    }
    # More threads than one make matrices of this size slower, and on a busy machine much slower.
    with threadpool_limits(1):
        return make_pipeline(StandardScaler(), classifiers[number]).fit(scans.images, scans.labels)


def _export(estimator: Any, doc: str) -> bytes:
    """The ONNX file: FP32 `input` [batch, 64] to INT64 `label` [batch] and FP32 `probabilities` [batch, 10]."""
    import onnx
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = to_onnx(
            estimator,
            initial_types=[("input", FloatTensorType([None, SIDE * SIDE]))],
            options={"zipmap": False},
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
    for tensor in (*model.graph.input, *model.graph.output):
        # By the one name that all of them share, the server knows that outputs have as many rows as inputs.
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.doc_string = doc
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def predict(path: Path, images: np.ndarray) -> np.ndarray:
    """The labels that an exported model gives, run by the engine that serves it."""
    from kernels.engine import Engine
    from kernels.session import Session

    request = build_request(MODEL, {"input": images}, outputs=("label",))
    engine = Engine(workers=1)
    try:
        engine.load(MODEL, 1, Session(str(path)), max_batch_size=len(images))
        response = messages.ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
    finally:
        engine.close()
    return read_response(response).outputs["label"]
