"""Reading the files that a configuration names: secrets, and the YAML file with settings.

For:      bounded reads of regular files; YAML without surprises.
Touches:  the file system, at start and on reload only.
"""

import os
import stat
from typing import Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .values import BadValue

_MAX_BYTES: Final = 1 << 20  # a configuration of ten thousand upstreams is smaller
_MAX_DEPTH: Final = 32  # levels of YAML; settings need six
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_PLAIN_TAGS: Final = frozenset(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq"))
_READ_REMEDY: Final = "Name a file that this process may read."


def check_regular(path: str) -> None:
    """Raises BadValue unless the path leads to a regular file: opening a pipe could wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise BadValue(f"The file cannot be read: {exc.strerror}.", _READ_REMEDY) from None
    except ValueError:  # a NUL, or a name that the file system cannot encode
        raise BadValue("This is not the name of a file.", _READ_REMEDY) from None
    if not stat.S_ISREG(mode):
        raise BadValue("This names something that is not a regular file.", _READ_REMEDY)


def read_text(path: str) -> str:
    """The whole of a regular file. Raises BadValue, which does not repeat the path: it may be a misplaced secret."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise BadValue(f"The file cannot be read: {exc.strerror}.", _READ_REMEDY) from None
    if len(content) > _MAX_BYTES:
        raise BadValue("The file is larger than 1 MiB.", "Name the right file.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadValue("The file is not valid UTF-8.", "Store it as UTF-8.") from None


def read_secret(path: str) -> str:
    """A secret from its file, without the newline that editors and `echo` put at the end. Raises BadValue."""
    content = read_text(path).rstrip("\r\n")
    if not content:
        raise BadValue("The file is empty.", "Put the secret into it.")
    return content


def read_yaml(path: str) -> dict[object, object]:
    """The mapping that a YAML file holds; an empty file is an empty mapping. Raises BadValue."""
    loader = yaml.CSafeLoader(read_text(path))
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _Checker(loader).check(node)
        content = loader.construct_document(node)
    except yaml.MarkedYAMLError as exc:
        raise BadValue(f"The YAML is broken{_where(exc)}.", "Correct it there.") from None
    except BadValue:
        raise
    except (yaml.YAMLError, ValueError, LookupError, RecursionError):
        raise BadValue("The YAML holds something that cannot be read.", "Correct it.") from None
    finally:
        loader.dispose()
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadValue("The file is not a mapping.", "Write one setting per line: name, colon, value.")
    return content


def _where(exc: yaml.MarkedYAMLError) -> str:
    mark = exc.problem_mark
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


class _Checker:
    """Refuses what YAML lets pass and a reader would not expect: keys that stand twice, dates, tags, rings."""

    def __init__(self, loader: yaml.CSafeLoader) -> None:
        self._loader = loader
        self._passed: set[int] = set()  # nodes that aliases lead to again

    def check(self, node: Node, parents: tuple[Node, ...] = ()) -> None:
        line = node.start_mark.line + 1
        if len(parents) > _MAX_DEPTH or any(parent is node for parent in parents):
            raise BadValue(f"Line {line} is nested too deeply.", "Write it flatter.")
        if id(node) in self._passed:
            return
        if node.tag not in _PLAIN_TAGS:
            raise BadValue(f"Line {line} holds a date or a tag.", "Put quotes round what is meant as text.")
        inside = (*parents, node)
        if isinstance(node, ScalarNode):
            plain = self._loader.resolve(ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
            if node.tag not in (plain, f"{_TAG}str"):
                raise BadValue(f"Line {line} holds a tag that does not fit its value.", "Leave the tag out.")
        elif isinstance(node, SequenceNode):
            for child in node.value:
                self.check(child, inside)
        elif isinstance(node, MappingNode):
            self._check_mapping(node, inside)
        self._passed.add(id(node))

    def _check_mapping(self, node: MappingNode, inside: tuple[Node, ...]) -> None:
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise BadValue(f"Line {line} has a key that is not text.", "Write a word before the colon.")
            if key.tag != _MERGE:
                self.check(key, inside)
            identity = (key.tag, key.value)
            if identity in lines:  # the key may be an API key: name the lines instead
                raise BadValue(f"The key in line {line} stood in line {lines[identity]} already.", "Keep one of them.")
            lines[identity] = line
            self.check(value, inside)
