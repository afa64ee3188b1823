"""The folders of a repository: what is a model, what is a version, and what leads out."""

import os

import pytest

from service.model_folders import ModelFolderError, find_config, find_model, find_model_file, list_models


@pytest.fixture
def repository(tmp_path):
    """An empty repository beside a file that is nobody's business."""
    (tmp_path / "secret.onnx").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "model.onnx").write_bytes(b"secret")
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def add_version(repository, name="echo", version="1"):
    """A version with a file."""
    folder = repository / name / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"x")
    return folder


def test_list_models_finds_versions_by_number(repository):
    """As in Triton: hidden folders and files are no models, names that are no numbers or start with 0 no versions."""
    for version in ("10", "9", "01", "0", "v2", "-1", "1" * 30):
        add_version(repository, version=version)
    (repository / ".git").mkdir()
    (repository / "README.md").write_text("")
    (repository / "echo" / "2").write_text("a file")
    (model,) = list_models(repository)
    assert (model.name, list(model.versions), model.problem) == ("echo", [9, 10], "")


@pytest.mark.parametrize("name", ["a b", "a:b", "ä", "-a", "a" * 129, "a\nb"])
def test_list_models_with_name_out_of_the_ordinary_reports_it(repository, name):
    """A name goes into log fields, health services and cluster names as it is."""
    add_version(repository, name)
    (model,) = list_models(repository)
    assert "expected letters, digits" in model.problem
    assert model.versions == {}


def test_list_models_with_name_that_is_not_utf8_can_be_shown(repository):
    """File names are bytes; what goes into an answer is not."""
    os.mkdir(os.fsencode(repository) + b"/\xff")
    (model,) = list_models(repository)
    assert model.name.encode()
    assert "expected letters, digits" in model.problem


def test_list_models_without_version_reports_it(repository):
    """An empty folder is an operator's mistake worth showing."""
    (repository / "empty").mkdir()
    (model,) = list_models(repository)
    assert model.problem == "expected a folder named by a version number, such as '1'; there is none"


def test_list_models_of_missing_repository_says_so(repository):
    """Nothing can be served from nowhere."""
    with pytest.raises(ModelFolderError, match=r"model repository .*none cannot be read: No such file"):
        list_models(repository / "none")


def test_model_folder_that_links_out_is_refused(repository):
    """A link must not turn another folder into a model."""
    (repository / "escape").symlink_to(repository.parent / "outside")
    (repository / "dangling").symlink_to(repository / "none")
    (repository / "loop").symlink_to(repository / "loop")
    problems = {model.name: model.problem for model in list_models(repository)}
    assert "leads out of its folder" in problems["escape"]
    assert "dangling is missing" in problems["dangling"]
    assert "loop cannot be read" in problems["loop"]


def test_version_or_file_that_links_out_is_refused(repository):
    """Neither a version's folder, nor its file, nor the configuration may lie elsewhere."""
    add_version(repository)
    (repository / "echo" / "2").symlink_to(repository.parent / "outside")
    (add_version(repository, version="3") / "model.onnx").unlink()
    (repository / "echo" / "3" / "model.onnx").symlink_to("../../../secret.onnx")
    (repository / "echo" / "4").symlink_to("1")
    (repository / "echo" / "config.pbtxt").symlink_to("/etc/passwd")
    (model,) = list_models(repository)
    for version in (2, 3):
        with pytest.raises(ModelFolderError, match="leads out of its folder"):
            find_model_file(model, version, "model.onnx")
    with pytest.raises(ModelFolderError, match=r"config\.pbtxt leads out of its folder"):
        find_config(model)
    assert find_model_file(model, 4, "model.onnx") == find_model_file(model, 1, "model.onnx")


def test_file_that_is_none_is_refused(repository):
    """A pipe would hold the server up for ever, and a missing file is named."""
    folder = add_version(repository)
    (model,) = list_models(repository)
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelFolderError, match=r"model\.onnx is missing"):
        find_model_file(model, 1, "model.onnx")
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(ModelFolderError, match=r"model\.onnx is not a regular file"):
        find_model_file(model, 1, "model.onnx")


@pytest.mark.parametrize("name", ["../2/model.onnx", "../../../secret.onnx", "/etc/passwd", "..", "."])
def test_file_name_that_leads_out_of_its_version_is_refused(repository, name):
    """A configuration may name the file, but no file elsewhere."""
    add_version(repository)
    add_version(repository, version="2")
    (model,) = list_models(repository)
    with pytest.raises(ModelFolderError, match="leads out of its folder"):
        find_model_file(model, 1, name)


def test_find_model_gives_what_list_models_gives(repository):
    """One folder is found without reading the others; a name that is no folder's finds nothing."""
    add_version(repository)
    (repository / "file").write_text("")
    assert [find_model(repository, "echo")] == list_models(repository)
    for name in ("other", "file", "..", ".", "", "echo/1", "a\0b"):
        assert find_model(repository, name) is None


def test_find_config_where_there_is_none_is_none(repository):
    """config.pbtxt is optional; a link that leads nowhere is not the same as none."""
    add_version(repository)
    (model,) = list_models(repository)
    assert find_config(model) is None
    (repository / "echo" / "config.pbtxt").symlink_to("none")
    with pytest.raises(ModelFolderError, match=r"config\.pbtxt is missing"):
        find_config(model)
