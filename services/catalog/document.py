"""A YAML text as plain data, with the line of everything in it; and nothing that YAML is known to do wrong.

It knows nothing of what a catalogue is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

DEPTH_MAX = 20
# Seven times as fast where the library was built with it, as its wheels are.
Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
NO_SCALAR_TAGS = (*PLAIN_TAGS, "tag:yaml.org,2002:binary")
NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Numbers that are not what they look like: 0100 is 64 and 19:50 is 1190; a long one by the sixties takes hours to read.
MISLEADING = re.compile(r"[-+]?0[0-9_]+|.*:.*", re.DOTALL)


class FileFault(NamedTuple):
    """A mistake in a file. `line` counts from 1; `path` is empty where the file as a whole is meant."""

    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.path + ': ' if self.path else ''}{self.text}"


class Document:
    """Plain data from a YAML document, and the line of every path in it."""

    def __init__(self) -> None:
        self.faults: list[FileFault] = []
        self._lines: dict[str, int] = {"": 1}
        self._seen: set[int] = set()
        self._unread: set[str] = set()  # paths with nothing there instead of what stands in the text

    def read(self, text: str) -> Any:
        loader = Loader(text)
        try:
            for depth, line in _depths(text):
                if depth > DEPTH_MAX:
                    self.faults.append(FileFault(line, "", f"is nested deeper than {DEPTH_MAX}"))
                    return {}
            node = loader.get_single_node()
            return {} if node is None else self._data(loader, node, "")
        finally:
            loader.dispose()

    def line(self, path: str) -> int:
        """Where a path stands, or the nearest thing around it that does."""
        while path not in self._lines:
            path = path.rpartition(".")[0]
        return self._lines[path]

    def fault(self, path: str, key: str, text: str) -> FileFault:
        """A complaint about the item `key`, at its line."""
        return FileFault(self.line(path), f"{path} ({key})", text)

    def is_unread(self, path: str) -> bool:
        """Whether a path, or what it stands in, was complained of and not read: that nothing is there is no news."""
        while path and path not in self._unread:
            path = path.rpartition(".")[0]
        return path != ""

    def _data(self, loader: yaml.SafeLoader, node: yaml.Node, path: str) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:
            return self._not_read(node, path, "aliases (`*name`) are not read: write it out")
        self._seen.add(id(node))
        collection = isinstance(node, yaml.CollectionNode)
        if (node.tag not in PLAIN_TAGS) if collection else (node.tag in NO_SCALAR_TAGS):
            return self._not_read(node, path, f"the tag {node.tag!r} is not read")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._data(loader, each, _join(path, n)) for n, each in enumerate(node.value)]
        if node.tag in NUMBER_TAGS and MISLEADING.fullmatch(node.value):
            text = "YAML reads a leading zero as octal and a colon as base 60: write it decimal, or in quotes"
            return self._not_read(node, path, f"{node.value[:20]}: {text}")
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            return self._not_read(node, path, getattr(error, "problem", None) or str(error))
        except (LookupError, AttributeError, ArithmeticError):  # what else PyYAML raises for what a tag does not fit
            return self._not_read(node, path, f"is not what its tag {node.tag!r} says")

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._fault(key_node, path, "a name must be plain text")
                continue
            if any("\ud800" <= letter <= "\udfff" for letter in key):
                self._fault(key_node, path, "a name has half a character in it")
                continue
            at = _join(path, key)
            if key in data:
                self._fault(key_node, at, f"stands twice: first in line {self._lines[at]}")
                continue
            self._lines[at] = key_node.start_mark.line + 1
            data[key] = self._data(loader, value_node, at)
        return data

    def _not_read(self, node: yaml.Node, path: str, text: str) -> None:
        self._unread.add(path)
        self._fault(node, path, text)

    def _fault(self, node: yaml.Node, path: str, text: str) -> None:
        self.faults.append(FileFault(node.start_mark.line + 1, path, text))


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """How deep each part of a text is nested, and its line; checked before anything recursive reads it."""
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            yield depth, event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
