"""The parts that audit's pages are made of: HTML without scripts and without anything loaded from elsewhere. Pure.

What is shown comes from logs, and may come from an adversary: every function takes text or JSON values and escapes
them, and gives `Html`, which is not escaped again. A value of the wrong type is shown as it is, and never added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from itertools import islice, zip_longest
from typing import Any

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem } h3 { font-size: 1rem }
h1, h2, h3, p, li { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #d0d7de; padding: .3rem .5rem; text-align: left; vertical-align: top }
td, code, h1, h2, h3, a { unicode-bidi: isolate }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.sum td { font-weight: 600; border-top: 2px solid #57606a } .part td { border-bottom: 0; padding-bottom: 0 }
.facts td:first-child { width: 30%; min-width: 7rem } .at { white-space: nowrap }
code { overflow-wrap: anywhere } .wide { overflow-x: auto } .wide code { overflow-wrap: normal }
.wide code.long { display: inline-block; min-width: 9rem; overflow-wrap: anywhere }
summary { cursor: pointer; padding: .2rem 0 }
pre { overflow-x: auto; background: #f6f8fa; padding: .5rem; white-space: pre-wrap; overflow-wrap: anywhere }
:target { background: #fff8c5 } .quiet { color: #57606a }
.yes { color: #116329 } .no { color: #a40e26; font-weight: 600 }
@media (max-width: 40rem) {
body { margin: 1rem auto; padding: 0 .6rem } th, td { padding: .25rem .3rem }
.wide > table, .wide > table > tbody, .wide > table > tbody > tr { display: block } .wide tr.head { display: none }
.wide > table > tbody > tr:not(.part) { border-bottom: 2px solid #d0d7de }
.wide > table > tbody > tr > td { display: inline-block; border: 0; text-align: left; white-space: normal }
.wide > table > tbody > tr > td[colspan] { display: block } .wide code { overflow-wrap: anywhere }
.wide > table > tbody > tr > td:empty { display: none } ol { padding-left: 1.5rem }
.wide > table > tbody > tr > td[title]::before { content: attr(title) ": "; color: #57606a }
.wide > table > tbody > tr > td > div { display: inline; margin-left: .4rem }
}
@media print { body { max-width: none } }
"""
# Whatever a browser would take for a script or an address, it loads and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
)


class Html(str):
    """Markup that is already escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as text; markup as it is."""
    if isinstance(value, Html):
        return value
    # A parser would make a line feed of a carriage return, and what is hashed would not be what is shown.
    return Html(escape(str(value)).replace("\r", "&#13;"))


def join(*parts: object) -> Html:
    """Parts one after another."""
    if len(parts) == 1:
        return text(parts[0])
    return Html("".join(map(text, parts)))


def page(title: str, *parts: object) -> str:
    """A whole document."""
    return f"{_HEAD}<title>{text(title)}</title><style>{_STYLE}</style></head><body>{join(*parts)}</body></html>\n"


def element(name: str, *parts: object, **attributes: str) -> Html:
    """`cls` is the class."""
    if not attributes:
        return Html(f"<{name}>{join(*parts)}</{name}>")
    named = (("class" if key == "cls" else key, value) for key, value in attributes.items() if value)
    given = "".join(f' {key}="{escape(value)}"' for key, value in named)
    return Html(f"<{name}{given}>{join(*parts)}</{name}>")


def link(href: str, *parts: object) -> Html:
    """`href`: a path of the report's own making, never of a log's."""
    return element("a", *parts, href=href)


def code(value: object) -> Html:
    return element("code", value)


def long_code(value: object) -> Html:
    """Of a value that may be a hash or longer, in a table with others."""
    return element("code", value, cls="long")


def verdict(agrees: bool | None, yes: str = "agrees", no: str = "differs", none: str = "not asked") -> Html:
    """Whether something agrees, in words and colour."""
    if agrees is None:
        return text(none)
    return element("span", yes if agrees else no, cls="yes" if agrees else "no")


def details(summary: object, *parts: object) -> Html:
    """Folded away."""
    return element("details", element("summary", summary), *parts)


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """A table of names and values."""
    made = (element("tr", element("td", name), element("td", value)) for name, value in rows)
    return element("table", *made, cls="facts")


def coded(rows: Mapping[str, object]) -> Html:
    """As `facts`, of names of our own and of values to be copied."""
    made = (f"<tr><td>{name}</td><td><code>{text(value)}</code></td></tr>" for name, value in rows.items())
    return Html(f'<table class="facts">{"".join(made)}</table>')


def table(head: Iterable[str], rows: Iterable[Html]) -> Html:
    """A table of `row`s, which scrolls by itself where the screen is narrow. A title that ends in `>` is of figures."""
    titles = (
        element("th", title.removesuffix(">"), cls="n") if title.endswith(">") else element("th", title)
        for title in head
    )
    return element("div", element("table", element("tr", *titles, cls="head"), *rows), cls="wide")


def row(*cells: object, head: Iterable[str] = (), cls: str = "", anchor: str = "") -> Html:
    """A row; a cell that is a `Figure` stands to the right. `head`: the titles of its table, which stand before the
    cells where the screen is narrow."""
    made = (
        element("td", cell, cls="n" if isinstance(cell, Figure) else "", title=title.removesuffix(">"))
        for cell, title in zip_longest(cells, islice(head, len(cells)), fillvalue="")
    )
    return element("tr", *made, cls=cls, id=anchor)


class Figure(Html):
    """A number for people."""

    __slots__ = ()


def is_whole(value: object) -> bool:
    """A whole number; to Python, `True` is one as well."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value: object) -> Figure:
    """With thousands separated."""
    return Figure(f"{value:,}" if is_whole(value) else text(value))


def yuan(fen: Any) -> Figure:
    """Fen as yuan, two decimals."""
    return _decimal(fen, 2)


def yuan_billed(fen: Any, computed: Any) -> Figure:
    """As `yuan`, and seen if it is not what was computed; None: nothing was."""
    shown = yuan(fen)
    return shown if computed is None or fen == computed else Figure(element("span", shown, cls="no"))


def points(millipoints: Any) -> Figure:
    """Millipoints as points, three decimals."""
    return _decimal(millipoints, 3)


def _decimal(value: Any, places: int) -> Figure:
    if not is_whole(value):
        return Figure(text(value))
    whole_part, rest = divmod(abs(value), 10**places)
    return Figure(f"{'−' if value < 0 else ''}{whole_part:,}.{rest:0{places}d}")


def total(values: Iterable[object]) -> int:
    """Of those that are whole numbers."""
    return sum(value for value in values if isinstance(value, int) and not isinstance(value, bool))
