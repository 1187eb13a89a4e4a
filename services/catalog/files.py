"""A catalogue as a YAML file: read with every error at once, each with its line; and written.

A file holds what `Catalogue` holds, under the same names: `operators`, `regions`, `models`, `rate_cards`, `plans`,
`data_centres`, `deployments`, `tariffs`, `policies`; beside it may stand `imported`, where the rates came from. It
knows nothing of what is published already: references to that are judged by the service.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from services.catalog.document import Document, FileFault
from services.catalog.domain.kinds import KINDS, Place, places
from services.catalog.domain.structure import structure_faults
from shared.contracts import catalog as c
from shared.contracts.base import Count, Instant, Part, Slug, Text
from shared.contracts.schema import complaints
from shared.errors import MalformedCommand

FILE_MAX_BYTES = 4 * 1024 * 1024  # a catalogue of thousands of items; a larger file is something else
FAULTS_SHOWN_MAX = 100
RAW_SEPARATORS = "\x85\u2028\u2029"


class Imported(Part, frozen=True, kw_only=True):
    """Where the rates of a file came from. `unpriced`: models without a price, each with the reason."""

    package: Text
    package_version: Text
    content_sha256: Text
    as_of: Instant
    fen_per_usd: Count
    priced: Count
    unpriced: dict[Slug, Text] = msgspec.field(default_factory=dict)

    def recorded(self) -> c.Import:
        """As it is published."""
        return c.Import(
            package=self.package,
            package_version=self.package_version,
            content_sha256=self.content_sha256,
            fen_per_usd=self.fen_per_usd,
            priced=self.priced,
            unpriced=tuple(sorted(self.unpriced)),
        )


class Content(c.Catalogue, frozen=True, kw_only=True):
    """What stands in a file: a catalogue, and where its rates came from."""

    imported: Imported | None = None


class CatalogueFile(NamedTuple):
    """A file that could be read. `faults`: what is wrong with it by itself, each with its line."""

    name: str
    catalogue: c.Catalogue
    imported: Imported | None
    faults: tuple[FileFault, ...]
    document: Document

    def refusal(self, faults: Iterable[FileFault], verdict: str = "is no catalogue") -> MalformedCommand:
        """`details.faults` lists every mistake, in order of lines."""
        return _refusal(self.name, faults, verdict)


def read_file(path: Path | str) -> CatalogueFile:
    """A file with all that is wrong with it by itself. Raises MalformedCommand where it cannot be read as a catalogue
    at all; see `read_text`."""
    path = Path(path)
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise _refusal(path.name, [FileFault(1, "", f"larger than {FILE_MAX_BYTES} bytes")])
        text = path.read_text("utf-8")
    except OSError as error:
        raise MalformedCommand(f"{path} cannot be read: {error.strerror}", {"file": str(path)}) from None
    except UnicodeDecodeError:
        raise _refusal(path.name, [FileFault(1, "", "is not UTF-8 text")]) from None
    return read_text(text, path.name)


def read_text(text: str, name: str = "catalogue") -> CatalogueFile:
    """As `read_file`. Raises MalformedCommand for a text that is no catalogue: `details.faults` lists every mistake
    with its line."""
    document = Document()
    try:
        data = document.read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = FileFault(mark.line + 1 if mark else 1, "", str(error.problem or error.context))
        raise _refusal(name, [found]) from None
    except yaml.YAMLError as error:
        raise _refusal(name, [FileFault(1, "", str(error))]) from None
    faults = list(document.faults)
    try:
        content = msgspec.convert(data, Content, strict=True)
    except msgspec.ValidationError as error:
        found_in = complaints(Content, data, error)
        for at, texts in found_in.items():
            where = "" if at == "_" else at
            if not document.is_faulty(where):
                faults += [FileFault(document.line(where), where, text) for text in texts]
        if isinstance(data, dict):
            faults += [document.fault(*fault) for fault in structure_faults(_readable(data, found_in))]
        raise _refusal(name, faults) from None
    catalogue = c.Catalogue(**{name: getattr(content, name) for name in c.Catalogue.__struct_fields__})
    faults += [document.fault(*fault) for fault in structure_faults(places(catalogue))]
    return CatalogueFile(name, catalogue, content.imported, tuple(faults), document)


def _readable(data: dict[str, Any], unreadable: Iterable[str]) -> Iterator[Place]:
    """The items that could be read, where others could not."""
    bad = {tuple(path.split(".")[:2]) for path in unreadable}
    for kind in KINDS:
        items = data.get(kind.field, ())
        for number, item in enumerate(items if isinstance(items, list) else ()):
            if (kind.field, str(number)) not in bad:
                with contextlib.suppress(msgspec.ValidationError):  # more is wrong than was reported
                    yield Place(kind, number, msgspec.convert(item, kind.item, strict=True))


def load_file(path: Path | str) -> CatalogueFile:
    """A file with nothing wrong with it by itself. Raises MalformedCommand with every mistake and its line."""
    return _faultless(read_file(path))


def load_catalogue(path: Path | str) -> c.Catalogue:
    """The catalogue in a file. Raises MalformedCommand; see `load_file`."""
    return load_file(path).catalogue


def parse_catalogue(text: str, name: str = "catalogue") -> c.Catalogue:
    """The catalogue in a text. Raises MalformedCommand: `details.faults` lists every mistake with its line."""
    return _faultless(read_text(text, name)).catalogue


def _faultless(read: CatalogueFile) -> CatalogueFile:
    if read.faults:
        raise read.refusal(read.faults)
    return read


def dump_catalogue(catalogue: c.Catalogue, imported: Imported | None = None) -> str:
    """A catalogue as YAML text that `read_text` reads back equal. Defaults are left out."""
    beside = {} if imported is None else {"imported": msgspec.to_builtins(imported)}
    return yaml.dump(
        beside | msgspec.to_builtins(catalogue),
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


def _refusal(name: str, faults: Iterable[FileFault], verdict: str = "is no catalogue") -> MalformedCommand:
    ordered = sorted(faults)
    shown = [str(fault) for fault in ordered[:FAULTS_SHOWN_MAX]]
    if len(ordered) > len(shown):
        shown.append(f"and {len(ordered) - len(shown)} more")
    details = {"file": name, "faults": shown, "found": [fault._asdict() for fault in ordered]}
    return MalformedCommand("\n  ".join([f"{name} {verdict}:", *shown]), details)
