"""What one model's folder asks for: its configuration, the versions to serve, and what each is made of."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from service.config_text import ModelConfigError
from service.model_config import WrittenConfig, read_config, read_override
from service.model_folders import (
    ModelFolder,
    ModelFolderError,
    find_config,
    find_model,
    find_model_file,
    find_state_file,
    find_warmup_file,
    resolve_inside,
)
from service.model_override import ModelOverride
from service.pb.model_config_pb2 import ModelConfig
from service.version_policy import check_labels, choose_versions

# Of one version: its configuration, then each of its files with what tells whether it has changed.
Makings = tuple[bytes, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class ModelPlan:
    """What is to serve of one model.

    Attributes
    ----------
    versions
        Ascending; one that its policy names and that has no folder is among them.
    has_given_files
        Whether the folder is not the repository's and goes away once the model is loaded.
    """

    folder: ModelFolder
    written: WrittenConfig
    versions: tuple[int, ...]
    has_given_files: bool = False

    def find_model_file(self, version: int) -> Path:
        """The ONNX file of one version; ModelFolderError when it cannot be had."""
        return find_model_file(self.folder, version, self.written.model_file)

    def list_makings(self, version: int) -> Makings:
        """What a version is made of: as long as this stays the same, loading it again would give the same.

        Which versions serve and under which labels is not part of it. Raises ModelFolderError for a missing file.
        """
        proto = ModelConfig()
        proto.CopyFrom(self.written.proto)
        proto.ClearField("version_policy")
        proto.parameters.pop("version_labels", None)
        config = proto.SerializeToString(deterministic=True) + bytes([self.written.max_batch_size is None])
        warmups = {
            data.input_data_file for run in proto.model_warmup for data in run.inputs.values() if data.input_data_file
        }
        states = {
            initial.data_file
            for state in proto.sequence_batching.state
            for initial in state.initial_state
            if initial.data_file
        }
        labels = {output.label_filename for output in proto.output if output.label_filename}
        files = [
            *self._list_model_files(version),
            *(find_warmup_file(self.folder, name) for name in sorted(warmups)),
            *(find_state_file(self.folder, name) for name in sorted(states)),
            *(self.folder.path / name for name in sorted(labels) if (self.folder.path / name).is_file()),
        ]
        return config, tuple(self._identify(path) for path in files)

    def measure_files(self) -> int:
        """The bytes of the ONNX files of all versions; ModelFolderError when one cannot be had."""
        return sum(path.stat().st_size for version in self.versions for path in self._list_model_files(version))

    def _list_model_files(self, version: int) -> list[Path]:
        """The ONNX file; of an ensemble, which has none, the version's folder must be there all the same."""
        if self.written.is_ensemble:
            resolve_inside(self.folder.path, str(version))
            return []
        return [self.find_model_file(version)]

    def _identify(self, path: Path) -> tuple[str, ...]:
        """A file by its place and time in the repository, and by its content where that was given."""
        if self.has_given_files:
            with path.open("rb") as file:
                return (hashlib.file_digest(file, "sha256").hexdigest(),)
        status = path.stat()
        return tuple(map(str, (path, status.st_ino, status.st_size, status.st_mtime_ns)))


def measure_files(root: Path, name: str) -> int:
    """The bytes of a model's ONNX files, of all versions that serve; 0 where they cannot be found."""
    try:
        folder = find_model(root, name)
        return plan_model(folder).measure_files() if folder else 0
    except (ModelFolderError, ModelConfigError, OSError):
        return 0


def plan_model(folder: ModelFolder, override: ModelOverride | None = None) -> ModelPlan:
    """What is to serve of the model in a folder.

    Parameters
    ----------
    override
        Whose configuration takes the place of the folder's; its files, if it has any, are in the folder already.

    Raises
    ------
    ModelFolderError, ModelConfigError
        Nothing of it can serve.
    """
    if folder.problem:
        raise ModelFolderError(folder.problem)
    name = folder.name
    written = read_override(override.config, name) if override else read_config(find_config(folder), name)
    versions = choose_versions(written.proto.version_policy, folder.versions)
    check_labels(written.labels, versions)
    return ModelPlan(folder, written, versions, has_given_files=bool(override and override.files))
