"""What lies in a model repository: models and versions by folder name, none of them outside the repository."""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from service.config_text import FILE_NAME as CONFIG_NAME

WARMUP_FOLDER = "warmup"
STATE_FOLDER = "initial_state"

# Names go into cluster names, health services and log fields as they are.
MODEL_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# As in Triton, a folder whose name starts with 0 is no version; 18 digits stay below 2^63.
VERSION_FOLDER = re.compile(r"[1-9][0-9]{0,17}")


class ModelFolderError(Exception):
    """A folder or file of the repository that cannot be served; the text says why."""


@dataclass(frozen=True)
class ModelFolder:
    """One model's folder: its versions by number, and what keeps all of them from serving, if anything does."""

    name: str
    path: Path
    versions: dict[int, Path] = field(default_factory=dict)
    problem: str = ""


def list_models(repository: Path) -> list[ModelFolder]:
    """Every folder of the repository, by name; hidden ones and plain files are no models.

    Raises
    ------
    ModelFolderError
        The repository itself cannot be read.
    """
    try:
        root = repository.resolve(strict=True)
        return [_read_model(root, path) for path in sorted(root.iterdir()) if _is_candidate(path)]
    except (OSError, RuntimeError) as error:
        raise ModelFolderError(f"model repository {repository} cannot be read: {_explain(error)}") from None


def find_model(repository: Path, name: str) -> ModelFolder | None:
    """The folder of one model as list_models has it, or None when there is none of that name."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        return None
    try:
        root = repository.resolve(strict=True)
        return _read_model(root, root / name) if _is_candidate(root / name) else None
    except (OSError, RuntimeError) as error:
        raise ModelFolderError(f"model repository {repository} cannot be read: {_explain(error)}") from None


def _is_candidate(path: Path) -> bool:
    """Folders, and links: one that leads nowhere is reported, not overlooked."""
    return not path.name.startswith(".") and (path.is_symlink() or path.is_dir())


def _read_model(root: Path, path: Path) -> ModelFolder:
    # A file name need not be UTF-8; what is shown of it must be.
    name = os.fsencode(path.name).decode(errors="replace")
    try:
        if not MODEL_FOLDER.fullmatch(name):
            raise ModelFolderError(f"folder name {name!r}: expected letters, digits, '_', '.' and '-', at most 128")
        folder = resolve_inside(root, path.name)
        versions = {int(entry.name): folder / entry.name for entry in folder.iterdir() if _is_version(entry)}
        if not versions:
            raise ModelFolderError("expected a folder named by a version number, such as '1'; there is none")
        return ModelFolder(name, folder, dict(sorted(versions.items())))
    except ModelFolderError as error:
        return ModelFolder(name, path, problem=str(error))
    except OSError as error:
        return ModelFolder(name, path, problem=f"the folder cannot be read: {_explain(error)}")


def _is_version(path: Path) -> bool:
    return VERSION_FOLDER.fullmatch(path.name) is not None and (path.is_symlink() or path.is_dir())


def find_config(model: ModelFolder) -> Path | None:
    """The model's configuration file, or None when it has none.

    Raises
    ------
    ModelFolderError
        It is not a regular file within the model's folder.
    """
    return resolve_file(model.path, CONFIG_NAME) if os.path.lexists(model.path / CONFIG_NAME) else None


def find_model_file(model: ModelFolder, version: int, name: str) -> Path:
    """The ONNX file of that name in one version's folder.

    Raises
    ------
    ModelFolderError
        It is missing, no regular file, or leads out of its folder by a link.
    """
    folder = resolve_inside(model.path, str(version))
    return resolve_file(folder, name)


def find_warmup_file(model: ModelFolder, name: str) -> Path:
    """A file of warm-up data, from the folder `warmup` of a model; ModelFolderError as of find_model_file."""
    return resolve_file(resolve_inside(model.path, WARMUP_FOLDER), name)


def find_state_file(model: ModelFolder, name: str) -> Path:
    """A file with a state's first elements, from a model's folder `initial_state`; errors as of find_model_file."""
    return resolve_file(resolve_inside(model.path, STATE_FOLDER), name)


def resolve_inside(folder: Path, name: str) -> Path:
    """The real path of an entry of a folder, itself already real; ModelFolderError when it leads out of the folder."""
    try:
        path = (folder / name).resolve(strict=True)
    except FileNotFoundError:
        raise ModelFolderError(f"{name} is missing") from None
    except (OSError, RuntimeError) as error:
        raise ModelFolderError(f"{name} cannot be read: {_explain(error)}") from None
    if not path.is_relative_to(folder) or path == folder:
        raise ModelFolderError(f"{name} leads out of its folder; expected everything of a model within its own folder")
    return path


def resolve_file(folder: Path, name: str) -> Path:
    """As resolve_inside, for a regular file: a pipe or a device would never end."""
    path = resolve_inside(folder, name)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ModelFolderError(f"{name} is not a regular file")
    return path


def _explain(error: OSError | RuntimeError) -> str:
    return getattr(error, "strerror", None) or str(error)
