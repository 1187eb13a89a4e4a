"""Reads the pages of an audit's report back, with the standard library alone, as a reader or a browser would."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Element:
    """An element with what is in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.inside: list[Element | str] = []

    def all(self, tag: str, cls: str = "") -> list[Element]:
        """Elements of a tag, and class, in it, in their order."""
        return [e for e in self.walk() if e.tag == tag and (not cls or e.attributes.get("class") == cls)]

    def one(self, tag: str, cls: str = "") -> Element:
        (found,) = self.all(tag, cls)
        return found

    def walk(self) -> Iterator[Element]:
        for each in self.inside:
            if isinstance(each, Element):
                yield each
                yield from each.walk()

    @property
    def text(self) -> str:
        return "".join(each if isinstance(each, str) else each.text for each in self.inside)

    @property
    def cells(self) -> list[Element]:
        """Of a row, its own."""
        return [each for each in self.inside if isinstance(each, Element) and each.tag == "td"]

    @property
    def texts(self) -> list[str]:
        return [cell.text for cell in self.cells]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        self._open[-1].inside.append(data)

    def whole(self) -> Element:
        self.close()
        assert self._open == [self.root], "something is not closed"
        return self.root


class Pages:
    """A folder of pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.pages = {path: self._read(folder / path) for path in self.paths}

    @staticmethod
    def _read(path: Path) -> Element:
        reader = _Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        return reader.whole()

    @property
    def index(self) -> Element:
        return self.pages["index.html"]

    def links(self) -> Iterator[tuple[str, str, str]]:
        """Page, and path and place of what is linked."""
        for path, page in self.pages.items():
            for link in page.all("a"):
                yield path, *self.target(path, link.attributes["href"])

    def target(self, path: str, href: str) -> tuple[str, str]:
        there, _, place = href.partition("#")
        return (normpath(join(dirname(path), there)) if there else path), place

    def listings(self) -> list[str]:
        return [path for path in self.paths if path.startswith("bills/") and path.count("/") == 1]

    def bills(self) -> list[str]:
        return [path for path in self.paths if path.count("/") == 2 and "-" not in path]

    def debits_of(self, bill: str) -> list[str]:
        """The pages with a bill's debits: its own, or those beside it."""
        stem = bill.removesuffix(".html")
        return [path for path in self.paths if path.startswith(f"{stem}-")] or [bill]

    def roots(self) -> dict[str, tuple[bytes, int]]:
        """By log: the root that the index says was signed, and the size."""
        found = {}
        logs, facts = self.index.all("h3"), self.index.all("table", "facts")
        for log in logs:
            at = self._after(log, facts)
            rows = {row.texts[0]: row.texts[1] for row in at.all("tr")}
            if "Signed root" in rows:
                found[log.text] = (bytes.fromhex(rows["Signed root"]), number(rows["Signed size"]))
        return found

    def _after(self, element: Element, among: list[Element]) -> Element:
        order = list(self.index.walk())
        where = order.index(element)
        return next(each for each in order[where:] if each in among)


def number(text: str) -> int:
    """A figure as it is shown, in its smallest unit."""
    return int(text.replace(",", "").replace(".", "").replace("−", "-"))


def leaf_of(log: str, position: int, stream: str, version: int, topic: str, state: str) -> bytes:
    """From docs/reference/leaf-encoding.md."""

    def text(value: str) -> bytes:
        return len(value.encode()).to_bytes(8, "big") + value.encode()

    fields = (
        text(log),
        position.to_bytes(8, "big"),
        text(stream),
        version.to_bytes(8, "big"),
        text(topic),
        text(state),
    )
    return hashlib.sha256(b"\x00tokengrid/event-leaf/v1\n" + b"".join(fields)).digest()


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 6962 §2.1.1, from the top: another way than that of the page."""
    if size == 1:
        assert not path
        return leaf
    left = 1 << ((size - 1).bit_length() - 1)
    if index < left:
        parts = root_of(leaf, index, left, path[:-1]) + path[-1]
    else:
        parts = path[-1] + root_of(leaf, index - left, size - left, path[:-1])
    return hashlib.sha256(b"\x01" + parts).digest()


class Proof:
    """A proof as a page shows it."""

    def __init__(self, details: Element) -> None:
        shown = {row.texts[0]: row.texts[1] for row in details.one("table", "facts").all("tr")}
        self.log, self.topic, self.state = shown["log"], shown["topic"], shown["state"]
        self.position, self.version = int(shown["position"]), int(shown["version"])
        self.stream = shown["stream"]
        self.leaf = bytes.fromhex(shown["leaf"])
        index, _, size = shown["index, of"].partition(" of ")
        self.index, self.size = int(index), int(size)
        (path,) = details.all("ol", "path")
        self.path = [bytes.fromhex(node.text) for node in path.all("li")]

    @property
    def event(self) -> tuple[str, int, str, int, str, str]:
        return self.log, self.position, self.stream, self.version, self.topic, self.state
