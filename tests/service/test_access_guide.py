"""docs/access.md: its file is one, its commands do what it says, and every action is explained."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.access_policy import ACTIONS
from service.cli import app

GUIDE = (Path(__file__).parents[2] / "docs/access.md").read_text()
MODELS = "models: {digits: {versions: {1: {weight: 1, endpoints: ['127.0.0.1:8001']}}}}\n"


def find_commands():
    """Every command of the guide, in its order, as words."""
    lines = re.findall(r"^    (sluice (?:.*\\\n)*.*)$", GUIDE, re.MULTILINE)
    return [shlex.split(line.replace("\\\n", " "), comments=True)[1:] for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the guide's deployment file, and a key for it that the guide's commands have made."""
    monkeypatch.chdir(tmp_path)
    (yaml,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    Path("deployment.yaml").write_text(MODELS + yaml)
    for command in find_commands():
        if command[0] == "token":
            words = command[: command.index(">")] if ">" in command else command
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, result.output
            if ">" in command:
                Path(command[-1]).write_text(result.stdout)
    return tmp_path


def test_commands_of_the_guide_work(folder):
    """All that it asks is allowed by the file that it shows."""
    checks = [command for command in find_commands() if command[0] == "access"]
    assert len(checks) == 3
    for command in checks:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output


def test_every_action_is_explained():
    """In the table."""
    assert set(ACTIONS) == set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE))))


def test_python_of_the_guide_is_python():
    """It compiles; the names that it leaves open are the reader's own."""
    (source,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names = {"secret": "s", "authority": None, "key": None, "certificate": None, "target": "127.0.0.1:1"}
    exec(compile(source + "channel.close()\n", "access.md", "exec"), names)
