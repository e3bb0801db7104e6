"""YAML text to plain data in which every value knows where it was written.

Reads the parser's events, not its objects: no tags, no object construction, bounded depth, size and alias
expansion. Plain scalars are typed as in the YAML 1.2 core schema, so `off` and `no` are words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from sim.files import UnfitFileError, read_regular
from sim.scenario.errors import ScenarioError

FILE_BYTES_MAX = 1_000_000
NODES_MAX = 100_000
ALIASES_MAX = 100
DEPTH_MAX = 50
_SHOWN_CHARACTERS = 60

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a value was written (`where`), where its key (`key_where`), and what it looks like (`text`)."""

    where: str
    key_where: str
    text: str


@dataclasses.dataclass
class Source:
    """Plain data, and the origin of every value in it by its path of keys and indices; () is the whole."""

    data: Any
    origins: dict[Path, Origin]
    inherited: dict[str, str] = dataclasses.field(default_factory=dict)  # keys of `protocol` written for another one

    def origin(self, path: Path) -> Origin:
        """The origin of a path, or of the nearest enclosing value that was written."""
        while path not in self.origins and path:
            path = path[:-1]
        return self.origins[path]

    def forget(self, path: Path) -> None:
        """Drop the origins at and below a path."""
        depth = len(path)
        self.origins = {p: o for p, o in self.origins.items() if p[:depth] != path}


@dataclasses.dataclass(frozen=True)
class _Node:
    kind: str  # scalar, list, mapping
    where: str
    text: str
    value: Any = None
    items: tuple[tuple[_Node | None, _Node], ...] = ()
    alias: bool = False


def read_file(path: FilePath) -> Source:
    """Read a scenario file. Raises ScenarioError."""
    where = f"{path}:1:1: {path.name}"
    try:
        text = read_regular(path, FILE_BYTES_MAX).decode("utf-8-sig")
    except UnfitFileError as error:
        raise ScenarioError(f"{where}: {error}; a scenario is a short text") from None
    except IsADirectoryError:
        raise ScenarioError(f"{where}: is a directory; give a scenario file inside it") from None
    except FileNotFoundError:
        raise ScenarioError(f"{where}: no such file; check the path") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{where}: is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ScenarioError(f"{where}: cannot be read ({reason}); check the path and its rights") from None
    source = read_text(text, str(path))
    if source.data is None:
        raise ScenarioError(f"{where}: is empty; write at least what scenarios/quickstart.yaml has")
    if not isinstance(source.data, dict):
        origin = source.origin(())
        raise ScenarioError(
            f"{origin.where}: {origin.text}: a scenario is a mapping; write lines such as duration: 10 min"
        )
    return source


def read_text(text: str, file: str, label: str | None = None) -> Source:
    """Read YAML text. With `label`, every origin is that label. Raises ScenarioError."""
    node = _Parser(text, file, label).document()
    origins: dict[Path, Origin] = {}
    if node is None:
        where = label or f"{file}:1:1"
        return Source(None, {(): Origin(where, where, "nothing")})
    return Source(_Expander(origins).expand(node, (), node.where, 0), origins)


class _Parser:
    """Events to nodes."""

    def __init__(self, text: str, file: str, label: str | None) -> None:
        self.text = text
        self.file = file
        self.label = label
        self.anchors: dict[str, _Node] = {}
        self.count = 0

    def where(self, mark: Any) -> str:
        return self.label or f"{self.file}:{mark.line + 1}:{mark.column + 1}"

    def refuse(self, mark: Any, value: str, message: str) -> ScenarioError:
        return ScenarioError(f"{self.where(mark)}: {_short(value)}: {message}")

    def document(self) -> _Node | None:
        """The only document's root node; None if there is no content."""
        from ruamel.yaml import YAML
        from ruamel.yaml import events as e
        from ruamel.yaml.error import MarkedYAMLError, YAMLError
        from ruamel.yaml.reader import ReaderError

        self.e = e
        try:
            stream = iter(YAML(typ="safe", pure=True).parse(self.text))
            root: _Node | None = None
            for event in stream:
                if isinstance(event, e.DocumentStartEvent):
                    if root is not None:
                        raise self.refuse(event.start_mark, "---", "a file holds one scenario; split the file")
                    root = self.node(next(stream), stream, 0)
            if root is not None and root.kind == "scalar" and root.value is None:
                return None
            return root
        except ReaderError as error:
            before = self.text[: error.position]
            code = error.character if isinstance(error.character, int) else ord(error.character)
            where = f"{self.file}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
            message = f"character U+{code:04X}: may not be in a scenario; remove it"
            raise ScenarioError(f"{self.label or where}: {message}") from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(str(error.problem or error.context).split())
            message = f"not YAML: {reason}; check indentation, colons and quotes"
            where = self.where(mark) if mark is not None else self.label or f"{self.file}:1:1"
            raise ScenarioError(f"{where}: {_short(self.line(mark))}: {message}") from None
        except YAMLError as error:
            reason = " ".join(str(error).split())
            raise ScenarioError(f"{self.label or f'{self.file}:1:1'}: not YAML: {reason}; check the syntax") from None

    def line(self, mark: Any) -> str:
        lines = self.text.splitlines()
        return lines[mark.line].strip() if mark is not None and mark.line < len(lines) else "end of file"

    def node(self, event: Any, stream: Iterator[Any], depth: int) -> _Node:
        e, mark = self.e, event.start_mark
        self.count += 1
        if self.count > NODES_MAX:
            raise self.refuse(mark, self.line(mark), f"more than {NODES_MAX} values; a scenario is a short text")
        if depth > DEPTH_MAX:
            raise self.refuse(mark, self.line(mark), f"nested more than {DEPTH_MAX} levels deep; flatten it")
        if isinstance(event, e.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is None:
                raise self.refuse(mark, f"*{event.anchor}", f"no finished &{event.anchor} comes before; write it out")
            return dataclasses.replace(target, where=self.where(mark), alias=True)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self.refuse(
                mark,
                str(tag).replace("tag:yaml.org,2002:", "!!"),
                "tags are not allowed; write the plain value",
            )
        if isinstance(event, e.ScalarEvent):
            plain = event.implicit[0]
            node = _Node("scalar", self.where(mark), event.value, _typed(event.value) if plain else event.value)
        elif isinstance(event, e.SequenceStartEvent):
            items: list[tuple[_Node | None, _Node]] = []
            while not isinstance(inner := next(stream), e.SequenceEndEvent):
                items.append((None, self.node(inner, stream, depth + 1)))
            node = _Node("list", self.where(mark), "a list", items=tuple(items))
        else:
            node = self.mapping(mark, stream, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def mapping(self, mark: Any, stream: Iterator[Any], depth: int) -> _Node:
        items: list[tuple[_Node | None, _Node]] = []
        seen: dict[str, str] = {}
        while not isinstance(inner := next(stream), self.e.MappingEndEvent):
            key = self.node(inner, stream, depth + 1)
            if key.kind != "scalar":
                raise self.refuse(inner.start_mark, key.text, "a key must be a word; write key: value")
            if key.text == "<<":
                raise self.refuse(inner.start_mark, "<<", "merge keys are not read; write extends: other.yaml")
            if key.text in seen:
                first = seen[key.text].removeprefix(f"{self.file}:")
                message = f"duplicate key, first given at {first}; remove one of the two"
                raise self.refuse(inner.start_mark, key.text, message)
            seen[key.text] = key.where
            items.append((key, self.node(next(stream), stream, depth + 1)))
        return _Node("mapping", self.where(mark), "a mapping", items=tuple(items))


class _Expander:
    """Nodes to plain data and origins, with aliases copied in; counts what they multiply to."""

    def __init__(self, origins: dict[Path, Origin]) -> None:
        self.origins = origins
        self.aliases = 0
        self.count = 0

    def expand(self, node: _Node, path: Path, key_where: str, depth: int) -> Any:
        self.count += 1
        self.aliases += node.alias
        if self.aliases > ALIASES_MAX or self.count > NODES_MAX or depth > 2 * DEPTH_MAX:
            rule = f"aliases expand to more than {ALIASES_MAX} copies or {NODES_MAX} values"
            raise ScenarioError(f"{node.where}: {_short(node.text)}: {rule}; write the values out")
        shown = _short(node.text) or ('""' if node.kind == "scalar" and node.value is not None else "nothing")
        self.origins[path] = Origin(node.where, key_where, shown)
        if node.kind == "scalar":
            return node.value
        if node.kind == "list":
            return [self.expand(item, (*path, i), item.where, depth + 1) for i, (_, item) in enumerate(node.items)]
        result = {}
        for key, item in node.items:
            assert key is not None
            result[key.text] = self.expand(item, (*path, key.text), key.where, depth + 1)
        return result


def _typed(text: str) -> Any:
    """A plain scalar's value by the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text in (".nan", ".NaN", ".NAN"):
        return float("nan")
    if _INF.fullmatch(text):
        return float("-inf" if text.startswith("-") else "inf")
    return text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 3] + "..."
