"""What callers see of a model version, for the kernels: reshaped tensors, and the labels of classes."""

from collections.abc import Sequence
from pathlib import Path

from kernels.interface import Interface
from kernels.session import Session
from service.model_folders import ModelFolderError, resolve_file
from service.serving_config import ServingConfig

MAX_LABELS_BYTES = 16 * 1024 * 1024


def make_interface(session: Session, config: ServingConfig, folder: Path) -> Interface | None:
    """The interface of a session that serves by a configuration; None where callers see what the model has.

    Parameters
    ----------
    folder
        The model's own, where files of labels lie.

    Raises
    ------
    ModelFolderError
        A file of labels is missing, too large, or leads out of the folder.
    """
    labels = [read_labels(folder, name) for name in config.label_files] if any(config.label_files) else None
    if not config.is_reshaped:
        return Interface(session, labels=labels) if labels else None
    return Interface(
        session,
        inputs=config.input_shapes,
        outputs=config.output_shapes,
        made=config.model_outputs,
        labels=labels,
        apart=config.uneven.apart if config.uneven else (),
    )


def read_labels(folder: Path, name: str) -> Sequence[bytes]:
    """The lines of a file of labels, the one for class 0 first; none for an empty name."""
    if not name:
        return ()
    path = resolve_file(folder, name)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise ModelFolderError(f"{name} cannot be read: {error.strerror}") from None
    if len(content) > MAX_LABELS_BYTES:
        raise ModelFolderError(f"{name}: expected at most {MAX_LABELS_BYTES} bytes of labels, given more")
    return content.splitlines()
