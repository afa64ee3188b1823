"""How an ensemble serves: its configuration completed, and the graph that the kernels run by it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from kernels.ensemble import Ensemble, EnsembleStep
from kernels.queue_options import QueueOptions
from kernels.session import TensorSpec
from service.config_text import FILE_NAME, ModelConfigError
from service.ensemble_fields import ENSEMBLE_PLATFORM
from service.model_config import WrittenConfig
from service.pb.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput
from service.serving_config import CONFIG_DATATYPES, ServingConfig
from service.tensor_interface import read_labels

DATATYPE_NAMES = {code: name for name, code in CONFIG_DATATYPES.items()}


def complete_ensemble(name: str, written: WrittenConfig) -> ServingConfig:
    """Fill in what the configuration of an ensemble leaves out.

    Raises
    ------
    ModelConfigError
        A tensor has a datatype that there is not.
    """
    proto = ModelConfig()
    proto.CopyFrom(written.proto)
    proto.name, proto.platform = name, ENSEMBLE_PLATFORM
    proto.max_batch_size = written.max_batch_size or 0
    if not proto.HasField("version_policy"):
        proto.version_policy.all.SetInParent()
    inputs, outputs = (_list_specs(proto, field) for field in ("input", "output"))
    shapes = {"input": tuple(spec.shape for spec in inputs), "output": tuple(spec.shape for spec in outputs)}
    return ServingConfig(
        name=name,
        max_batch_size=proto.max_batch_size,
        queue_delay_us=0,
        queueing=QueueOptions(),
        graph_batches=(),
        instance_count=1,
        intra_op_threads=0,
        inter_op_threads=0,
        inputs=inputs,
        outputs=outputs,
        input_shapes=shapes["input"],
        output_shapes=shapes["output"],
        model_inputs=shapes["input"],
        model_outputs=shapes["output"],
        label_files=tuple(output.label_filename for output in proto.output),
        sequences=None,
        uneven=None,
        proto=proto,
    )


def make_ensemble(config: ServingConfig, folder: Path) -> Ensemble:
    """The graph of an ensemble.

    Parameters
    ----------
    folder
        The ensemble's own, where files of labels lie.

    Raises
    ------
    EnsembleError
        The graph cannot be run, whatever the models are.
    ModelFolderError
        A file of labels cannot be had.
    """
    labels = [read_labels(folder, name) for name in config.label_files] if any(config.label_files) else None
    optional = [given.name for given in config.proto.input if given.optional]
    return Ensemble(config.inputs, config.outputs, list_steps(config.proto), optional=optional, labels=labels)


def list_steps(proto: ModelConfig) -> list[EnsembleStep]:
    """The steps of an ensemble, in the order of its configuration; none for a model."""
    return [
        EnsembleStep(step.model_name, step.model_version, _sort(step.input_map.items()), _sort(step.output_map.items()))
        for step in proto.ensemble_scheduling.step
    ]


def list_step_models(proto: ModelConfig) -> list[str]:
    """The models that an ensemble consists of, each once, by name; none for a model."""
    return sorted({step.model_name for step in proto.ensemble_scheduling.step})


def _sort(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A map of protobuf has no order of its own."""
    return dict(sorted(pairs))


def _list_specs(proto: ModelConfig, field: str) -> tuple[TensorSpec, ...]:
    batch = (-1,) if proto.max_batch_size > 0 else ()
    return tuple(_make_spec(field, tensor, batch) for tensor in getattr(proto, field))


def _make_spec(field: str, tensor: ModelInput | ModelOutput, batch: Sequence[int]) -> TensorSpec:
    if tensor.data_type not in DATATYPE_NAMES:
        where = f"{FILE_NAME}: {field} {tensor.name!r}: data_type"
        known = ", ".join(map(DataType.Name, DATATYPE_NAMES))
        raise ModelConfigError(f"{where}: expected one of {known}, given {tensor.data_type}")
    shape = (*batch, *tensor.dims)
    return TensorSpec(tensor.name, DATATYPE_NAMES[tensor.data_type], shape, ("",) * len(shape))
