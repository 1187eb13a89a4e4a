"""Which events of a section are ordinary debits, and what they say, as numbers by the column. Pure.

Ordinary is a debit without a reservation that one grant, or the credit limit, paid for in full. Only what decoding the
JSON of the whole state would give is taken from its columns: each field that is used, or passed over, is held to be one
JSON value by itself, so that none can reach into the next. Whatever is not understood is not ordinary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.audit.replay.calendar import instant
from services.audit.replay.columns import Columns
from services.audit.replay.kinds import content_of

DEBITED = "quota.TokensDebited:1"
NEEDED = {"at", "recorded_at", "request_id", "model", "rate_card", "rates", "usage", "amount", "draws"}
PASSED_OVER = {"fingerprint", "call"}  # strings that the ledger does not look at
SAME = {"recorded_at=at": "recorded_at", "call=request_id": "call"}  # as a shape tells it
# Products of tokens and rates, and sums of amounts over a section, stay within 64 bits.
TOKENS_MAX = 2**28
AMOUNT_MAX = 2**45
WIDTHS_MAX = 16  # how many lengths of texts are looked at; what has others is not ordinary

_INSTANT = re.compile(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"', re.ASCII)
_QUOTE = ord('"')
_BACKSLASH = ord("\\")
_PRINTABLE = (ord(" "), ord("~"))
_Tokens = Annotated[int, msgspec.Meta(ge=0, lt=TOKENS_MAX)]


class _Usage(msgspec.Struct, gc=False):
    input: _Tokens = 0
    cached_input: _Tokens = 0
    cache_write: _Tokens = 0
    output: _Tokens = 0


_USAGE = msgspec.json.Decoder(_Usage).decode
_NONE = _Usage()


class Coded(NamedTuple):
    """Values of few kinds: for each row which, and the kinds. None: one that is not ordinary."""

    codes: Any
    kinds: Sequence[Any]

    def fine(self) -> Any:
        """By row, whether its value is ordinary."""
        return np.array([kind is not None for kind in self.kinds], dtype=bool)[self.codes]


class Ordinary(NamedTuple):
    """Ordinary debits, a row each: `rows` are their places in the section. `usage`: tokens by class; `request_ids`: by
    length, which rows have it and the bytes of their ids; `fine`: whether all of a row was understood."""

    rows: Any
    fine: Any
    streams: Coded
    versions: Any
    at: Coded
    recorded_at: Coded
    model: Coded
    rate_card: Coded
    rates: Coded
    grant: Coded
    amounts: Any
    usage: Sequence[Any]
    request_ids: Sequence[tuple[Any, Any]]


def plain(section: Columns) -> Any:
    """By row, whether it has the fields of an ordinary debit and no others."""
    shapes = section.shapes
    known = np.array([_is_plain(shape) for shape in shapes.dictionary.to_pylist()], dtype=bool)
    if not known.any():
        return np.zeros(len(shapes), dtype=bool)
    debited = pc.equal(section.topics, DEBITED).to_numpy(zero_copy_only=False)
    return known[shapes.indices.to_numpy(zero_copy_only=False)] & debited


def _is_plain(shape: str) -> bool:
    words = shape.split(" ")
    names = [SAME.get(word, word) for word in words]
    return len(set(names)) == len(names) and NEEDED <= set(names) <= NEEDED | PASSED_OVER


def ordinary(section: Columns, candidates: Any) -> Ordinary | None:
    """What the rows say that may be ordinary; None where nothing can be said."""
    streams = pc.dictionary_encode(section.streams)
    codes = streams.indices.to_numpy(zero_copy_only=False)
    left = np.zeros(len(streams.dictionary), dtype=bool)  # streams of which something is not ordinary
    left[codes[~candidates]] = True
    rows = np.flatnonzero(~left[codes])
    amounts = section.integers("amount")
    if amounts is None or not len(rows):
        return None
    pick = _picker(rows, len(codes))
    amounts = pick(amounts)
    shapes = pick(section.shapes)
    read = _Fields(section, pick, shapes)
    numbers = amounts.to_numpy(zero_copy_only=False)
    fine = (numbers >= 0) & (numbers < AMOUNT_MAX)
    at_texts = read("at")
    at = _coded(at_texts, _instant)
    recorded = read("recorded_at", "at")
    recorded_at = at if recorded is at_texts else _coded(recorded, _instant)
    model, card, rates = (_coded(read(name), _decoded) for name in ("model", "rate_card", "rates"))
    grant = _grants(read("draws"), amounts)
    for each in (at, recorded_at, model, card, rates, grant):
        fine &= each.fine()
    request_texts = read("request_id")
    request_ids = list(_strings(request_texts, fine))
    for name, of in (("fingerprint", ""), ("call", "request_id")):
        texts = read(name, of)
        if texts is not None and texts is not request_texts:
            for _ in _strings(texts, fine):
                pass  # it is only looked at
    usage = _usage(read("usage"), fine)
    return Ordinary(
        rows,
        fine,
        Coded(codes if len(rows) == len(codes) else codes[rows], streams.dictionary.to_pylist()),
        pick(section.versions).to_numpy(zero_copy_only=False),
        at,
        recorded_at,
        model,
        card,
        rates,
        grant,
        numbers,
        usage,
        request_ids,
    )


def _picker(rows: Any, count: int) -> Callable[[Any], Any]:
    if len(rows) == count:
        return lambda array: array
    chosen = pa.array(rows)
    return lambda array: array.take(chosen)


class _Fields:
    """The fields' texts. What a shape tells as the same as another is read there, whatever stands in its column."""

    def __init__(self, section: Columns, pick: Callable[[Any], Any], shapes: Any) -> None:
        self._section = section
        self._pick = pick
        self._words = [set(shape.split(" ")) for shape in shapes.dictionary.to_pylist()]
        self._numbers = shapes.indices.to_numpy(zero_copy_only=False)
        self._known: dict[tuple[str, str], Any] = {}

    def __call__(self, name: str, of: str = "") -> Any:
        """None: no event has such a field by itself."""
        if (name, of) in self._known:
            return self._known[name, of]
        found = self._known[name, of] = self._read(name, of)
        return found

    def _read(self, name: str, of: str) -> Any:
        own = self._having(name)
        texts = self._section.texts(name) if own.any() else None
        if of and not own.all():
            same = self._having(f"{name}={of}")
            if same.all():
                return self(of)
            other = self(of)
            return other if texts is None else pc.if_else(pa.array(own), self._pick(texts), other)
        if texts is None:
            return None
        texts = self._pick(texts)
        return texts if own.all() else pc.if_else(pa.array(own), texts, pa.scalar(b'""'))

    def _having(self, word: str) -> Any:
        return np.array([word in words for words in self._words], dtype=bool)[self._numbers]


def _coded(texts: Any, kind: Callable[[bytes], Any]) -> Coded:
    encoded = pc.dictionary_encode(texts)
    return Coded(
        encoded.indices.to_numpy(zero_copy_only=False), [kind(text) for text in encoded.dictionary.to_pylist()]
    )


def _instant(text: bytes) -> tuple[str, datetime] | None:
    """The text of an instant, and the instant."""
    try:
        found = text.decode()
        return (found[1:-1], instant(found[1:-1])) if _INSTANT.fullmatch(found) else None
    except ValueError:
        return None


def _decoded(text: bytes) -> Any:
    try:
        return content_of(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _usage(texts: Any, fine: Any) -> list[Any]:
    """Tokens by class."""
    listed = texts.to_pylist()
    try:
        found = list(map(_USAGE, listed))
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = [_used(text, n, fine) for n, text in enumerate(listed)]
    count = len(found)
    return [np.fromiter(map(attrgetter(name), found), np.int64, count) for name in _Usage.__struct_fields__]


def _used(text: bytes, row: int, fine: Any) -> _Usage:
    try:
        return _USAGE(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fine[row] = False
        return _NONE


def _grants(texts: Any, amounts: Any) -> Coded:
    """The names of the grants that paid, where one paid all: `[["name",amount]]`."""
    written = amounts.cast(pa.string()).cast(pa.binary())
    begin, middle, end = b'[["', b'",', b"]]"
    frame = len(begin + middle + end)
    widths = (pc.binary_length(texts).to_numpy() - pc.binary_length(written).to_numpy()) - frame
    codes = np.zeros(len(texts), dtype=np.int64)
    kinds: dict[bytes, int] = {b"": 0}
    for width, rows in _by_width(widths):
        pick = _picker(rows, len(texts))
        names = pc.binary_slice(pick(texts), len(begin), len(begin) + width)
        again = pc.binary_join_element_wise(
            pa.scalar(begin), names, pa.scalar(middle), pick(written), pa.scalar(end), pa.scalar(b"")
        )
        same = pc.equal(again, pick(texts)).to_numpy(zero_copy_only=False)
        encoded = pc.dictionary_encode(names)
        of = np.array([kinds.setdefault(name, len(kinds)) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
        codes[rows] = np.where(same, of[encoded.indices.to_numpy(zero_copy_only=False)], 0)
    return Coded(codes, [_name(name) for name in kinds])


def _name(raw: bytes) -> str | None:
    """A name that is in JSON what it is."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    return name if name and name.isprintable() and '"' not in name and "\\" not in name else None


def _strings(texts: Any, fine: Any) -> Iterator[tuple[Any, Any]]:
    """Rows by the length of their string, with its bytes as a matrix, where it is of ASCII and needs no escape."""
    seen = np.zeros(len(texts), dtype=bool)
    for width, rows in _by_width(pc.binary_length(texts).to_numpy()):
        seen[rows] = True
        if width < 2:
            fine[rows] = False
            continue
        chosen = _picker(rows, len(texts))(texts)
        _, offsets, data = chosen.buffers()
        start = np.frombuffer(offsets, dtype=np.int32)[chosen.offset]
        matrix = np.frombuffer(data, dtype=np.uint8, count=len(rows) * width, offset=start).reshape(len(rows), width)
        inner = matrix[:, 1:-1]
        strange = (inner == _QUOTE) | (inner == _BACKSLASH) | (inner < _PRINTABLE[0]) | (inner > _PRINTABLE[1])
        quoted = (matrix[:, 0] == _QUOTE) & (matrix[:, -1] == _QUOTE)
        if strange.any() or not quoted.all():
            fine[rows] &= quoted & ~strange.any(axis=1)
        yield rows, inner
    fine &= seen


def _by_width(widths: Any) -> Iterator[tuple[int, Any]]:
    """The commonest lengths from 1 on, and the rows that have them."""
    if len(widths) and widths.min() == widths.max():
        yield from ((width, np.arange(len(widths))) for width in (int(widths[0]),) if width > 0)
        return
    kinds, counts = np.unique(widths, return_counts=True)
    for width in kinds[np.argsort(-counts, kind="stable")][:WIDTHS_MAX].tolist():
        if width > 0:
            yield width, np.flatnonzero(widths == width)
