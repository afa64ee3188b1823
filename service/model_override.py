"""What a client brings with a request to load a model: a configuration, and the files that it is to be loaded from."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from service.config_text import FILE_NAME
from service.model_folders import MODEL_FOLDER, ModelFolder, ModelFolderError, find_model
from service.status import InvalidArgumentError

# A file's place in the model's folder, such as 1/model.onnx: names only, none of which leads elsewhere.
MAX_DEPTH = 4
FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class ModelOverride:
    """What to load instead of what the repository holds.

    Attributes
    ----------
    config
        JSON of a ModelConfig, in place of the configuration file.
    files
        Content by path in the model's folder, in place of everything that the folder holds; none leaves it as it is.
    """

    config: str
    files: Mapping[str, bytes] = field(default_factory=dict)


@contextlib.contextmanager
def lay_out_files(name: str, files: Mapping[str, bytes]) -> Iterator[ModelFolder]:
    """A folder of a model with these files, which nobody else can read and which is gone afterwards.

    Raises
    ------
    InvalidArgumentError
        A name or a path is not one of a model's folder.
    """
    if not MODEL_FOLDER.fullmatch(name):
        raise InvalidArgumentError(f"model_name: expected letters, digits, '_', '.' and '-', given {name!r}")
    paths = {path: _check_path(path) for path in files}
    with tempfile.TemporaryDirectory(prefix="sluice-") as root:
        folder = Path(root, name)
        for path, place in paths.items():
            try:
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(files[path])
            except OSError as error:
                raise InvalidArgumentError(f"file:{path}: cannot be laid out: {error.strerror}") from None
        found = find_model(Path(root), name)
        if found is None:
            raise ModelFolderError(f"{name} is missing")
        yield found


def _check_path(path: str) -> PurePosixPath:
    parts = path.split("/")
    if len(parts) > MAX_DEPTH or not all(FILE_PART.fullmatch(part) for part in parts):
        raise InvalidArgumentError(f"file:{path[:200]}: expected a path in the model's folder, such as 1/model.onnx")
    if parts == [FILE_NAME]:
        raise InvalidArgumentError(f"file:{path}: expected the configuration as the parameter config")
    return PurePosixPath(path)
