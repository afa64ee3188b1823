"""What the configuration of an ensemble must say, and what it must not, as far as that can be told by itself."""

from service.config_text import FILE_NAME, ModelConfigError
from service.pb.model_config_pb2 import ModelConfig, ModelEnsembling

ENSEMBLE_PLATFORM = "ensemble"
NEWEST = -1

# What there is of models only: an ensemble has no file, no instances and no batches of its own.
MODEL_FIELDS = (
    "backend",
    "batch_input",
    "batch_output",
    "default_model_filename",
    "instance_group",
    "model_warmup",
)


def check_ensemble(proto: ModelConfig) -> None:
    """Refuse what an ensemble cannot have, and steps that say too little.

    Raises
    ------
    ModelConfigError
        The text names the field, expected and given.
    """
    if proto.platform not in ("", ENSEMBLE_PLATFORM):
        raise _wrong("platform", f"expected {ENSEMBLE_PLATFORM!r} with ensemble_scheduling, given {proto.platform!r}")
    set_fields = {field.name for field, _ in proto.ListFields()}
    for name in MODEL_FIELDS:
        if name in set_fields:
            raise _wrong(name, "an ensemble has none; expected it with the models of its steps")
    for field in ("input", "output"):
        _check_tensors(proto, field)
    for index, step in enumerate(proto.ensemble_scheduling.step):
        _check_step(f"ensemble_scheduling.step[{index}]", step)


def _check_tensors(proto: ModelConfig, field: str) -> None:
    """There is no model file that could tell what is left out."""
    tensors = getattr(proto, field)
    if not tensors:
        raise _wrong(field, f"expected every {field} of the ensemble, given none")
    names = set()
    for index, tensor in enumerate(tensors):
        where = f"{field}[{index}]"
        if not tensor.name or tensor.name in names:
            raise _wrong(f"{where}.name", f"expected a name, each once, given {tensor.name!r}")
        if not tensor.data_type:
            raise _wrong(f"{where}.data_type", "expected the datatype, given none")
        if not tensor.dims:
            raise _wrong(f"{where}.dims", "expected the dimensions, given none")
        if any(dim == 0 or dim < -1 for dim in tensor.dims):
            raise _wrong(f"{where}.dims", f"expected numbers of at least 1, or -1, given {list(tensor.dims)}")
        if tensor.HasField("reshape"):
            raise _wrong(f"{where}.reshape", "an ensemble has none; expected it with the models of its steps")
        if field == "input" and tensor.allow_ragged_batch:
            raise _wrong(
                f"{where}.allow_ragged_batch", "an ensemble has no batches; expected it with its steps' models"
            )
        names.add(tensor.name)


def _check_step(where: str, step: ModelEnsembling.Step) -> None:
    if not step.model_name:
        raise _wrong(f"{where}.model_name", "expected the name of a model, given nothing")
    if step.model_version != NEWEST and step.model_version < 1:
        raise _wrong(
            f"{where}.model_version", f"expected a version, or {NEWEST} for the highest, given {step.model_version}"
        )
    for field in ("input_map", "output_map"):
        for name, tensor in getattr(step, field).items():
            if not name or not tensor:
                raise _wrong(
                    f"{where}.{field}", "expected the model's name of a tensor as key, the ensemble's as value"
                )


def _wrong(field: str, complaint: str) -> ModelConfigError:
    return ModelConfigError(f"{FILE_NAME}: {field}: {complaint}")
