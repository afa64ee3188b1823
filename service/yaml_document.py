"""Reads YAML that people write: plain data, and the line of every value, so that an error can say where it is."""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

Path = tuple[str | int, ...]
# A value that is repeated by reference counts each time: no text that people write comes near.
MOST_VALUES = 1_000_000


class YamlError(ValueError):
    """Text that cannot be read; it says on which line and why."""


@dataclass(frozen=True)
class YamlDocument:
    """What a text says.

    Attributes
    ----------
    data
        Mappings, lists and scalars; every key is a text.
    lines
        Of each value, by the keys and places that lead to it: that of its key, if it has one; counted from 1.
    """

    data: object
    lines: dict[Path, int]

    def find_line(self, path: Path) -> int:
        """The line of a value, or of the nearest that contains it."""
        return next(self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines)


def read_yaml(text: str) -> YamlDocument:
    """Read one document; an empty text is an empty mapping.

    Raises
    ------
    YamlError
        It is not YAML, has a key twice in one mapping, or refers to itself.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return _read_document(root) if root is not None else YamlDocument({}, {(): 1})
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(f"line {line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error if isinstance(error, YamlError) else YamlError(f"line 1: {error}") from None


def _read_document(root: yaml.Node) -> YamlDocument:
    lines: dict[Path, int] = {}
    constructor = yaml.SafeLoader("")

    def read(node: yaml.Node, line: int, path: Path, within: frozenset[int]) -> object:
        if id(node) in within:
            raise YamlError(f"line {line}: a value that contains itself")
        if len(lines) >= MOST_VALUES:
            raise YamlError(f"line {line}: more than {MOST_VALUES} values")
        lines[path] = line
        inside = within | {id(node)}
        if isinstance(node, yaml.MappingNode):
            return {key: read(value, line, (*path, key), inside) for line, key, value in _list_pairs(node)}
        if isinstance(node, yaml.SequenceNode):
            return [read(value, _line(value), (*path, index), inside) for index, value in enumerate(node.value)]
        return constructor.construct_object(node)

    return YamlDocument(read(root, _line(root), (), frozenset()), lines)


def _list_pairs(node: yaml.MappingNode) -> Iterator[tuple[int, str, yaml.Node]]:
    """Keys as they are written, with their lines and values."""
    seen: set[str] = set()
    for key, value in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(f"line {line}: expected a text as key")
        if key.value in seen:
            raise YamlError(f"line {line}: key {key.value!r} is there twice")
        seen.add(key.value)
        yield line, key.value, value


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
