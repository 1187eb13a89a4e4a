"""A catalogue as a YAML file: read with every error at once, each with its line; and written.

A file holds what `Catalogue` holds, under the same names: `operators`, `regions`, `models`, `rate_cards`, `plans`,
`data_centres`, `deployments`, `tariffs`, `policies`. It knows nothing of what is published already: references to that
are judged by the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from services.catalog.domain.structure import structure_faults
from shared.contracts import catalog as c
from shared.contracts.schema import complaints
from shared.errors import MalformedCommand

FILE_MAX_BYTES = 4 * 1024 * 1024  # a catalogue of thousands of items; a larger file is something else
FAULTS_SHOWN_MAX = 100
DEPTH_MAX = 20
RAW_SEPARATORS = "\x85\u2028\u2029"
PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class FileFault(NamedTuple):
    """A mistake in a file. `line` counts from 1; `path` is empty where the file as a whole is meant."""

    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.path + ': ' if self.path else ''}{self.text}"


def load_catalogue(path: Path | str) -> c.Catalogue:
    """The catalogue in a file. Raises MalformedCommand; see `parse_catalogue`."""
    path = Path(path)
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise _refusal(path.name, [FileFault(1, "", f"larger than {FILE_MAX_BYTES} bytes")])
        text = path.read_text("utf-8")
    except OSError as error:
        raise MalformedCommand(f"{path} cannot be read: {error.strerror}", {"file": str(path)}) from None
    except UnicodeDecodeError:
        raise _refusal(path.name, [FileFault(1, "", "is not UTF-8 text")]) from None
    return parse_catalogue(text, path.name)


def parse_catalogue(text: str, name: str = "catalogue") -> c.Catalogue:
    """The catalogue in a text. Raises MalformedCommand: `details.faults` lists every mistake with its line."""
    document = _Document()
    try:
        data = document.read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = FileFault(mark.line + 1 if mark else 1, "", str(error.problem or error.context))
        raise _refusal(name, [found]) from None
    except yaml.YAMLError as error:
        raise _refusal(name, [FileFault(1, "", str(error))]) from None
    faults = list(document.faults)
    catalogue: c.Catalogue | None = None
    try:
        catalogue = msgspec.convert(data, c.Catalogue, strict=True)
    except msgspec.ValidationError as error:
        for at, texts in complaints(c.Catalogue, data, error).items():
            where = "" if at == "_" else at
            if not document.is_faulty(where):
                faults += [FileFault(document.line(where), where, text) for text in texts]
    if catalogue is not None:
        faults += [FileFault(document.line(f.path), f"{f.path} ({f.key})", f.text) for f in structure_faults(catalogue)]
    if faults or catalogue is None:
        raise _refusal(name, faults)
    return catalogue


def dump_catalogue(catalogue: c.Catalogue) -> str:
    """A catalogue as YAML text that `parse_catalogue` reads back equal. Defaults are left out."""
    return yaml.dump(
        msgspec.to_builtins(catalogue),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=120,
        default_flow_style=None,
    )


class _Dumper(yaml.SafeDumper):
    """Writes line separators other than a newline as escapes: PyYAML would write them raw, and read them as folds."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(separator in text for separator in RAW_SEPARATORS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _refusal(name: str, faults: list[FileFault]) -> MalformedCommand:
    ordered = [str(fault) for fault in sorted(faults)]
    shown = ordered[:FAULTS_SHOWN_MAX]
    if len(ordered) > len(shown):
        shown.append(f"and {len(ordered) - len(shown)} more")
    return MalformedCommand("\n  ".join([f"{name} is no catalogue:", *shown]), {"file": name, "faults": shown})


class _Document:
    """Plain data from a YAML document, and the line of every path in it."""

    def __init__(self) -> None:
        self.faults: list[FileFault] = []
        self._lines: dict[str, int] = {"": 1}
        self._seen: set[int] = set()

    def read(self, text: str) -> Any:
        loader = yaml.SafeLoader(text)
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

    def is_faulty(self, path: str) -> bool:
        """Whether a path, or what it stands in, was complained of while it was read: once is enough."""
        return any(path == fault.path or path.startswith(f"{fault.path}.") for fault in self.faults if fault.path)

    def _data(self, loader: yaml.SafeLoader, node: yaml.Node, path: str) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:
            self._fault(node, path, "aliases (`*name`) are not read: write it out")
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.CollectionNode) and node.tag not in PLAIN_TAGS:
            self._fault(node, path, f"the tag {node.tag!r} is not read")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._data(loader, each, _join(path, n)) for n, each in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._fault(node, path, getattr(error, "problem", None) or str(error))
            return None

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._fault(key_node, path, "a name must be plain text")
                continue
            at = _join(path, key)
            if key in data:
                self._fault(key_node, at, f"stands twice: first in line {self._lines[at]}")
                continue
            self._lines[at] = key_node.start_mark.line + 1
            data[key] = self._data(loader, value_node, at)
        return data

    def _fault(self, node: yaml.Node, path: str, text: str) -> None:
        self.faults.append(FileFault(node.start_mark.line + 1, path, text))


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """How deep each part of a text is nested, and its line; checked before anything recursive reads it."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            yield depth, event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
