"""Events as columns, and back: each field of a state goes into a column of its own, its JSON text byte for byte.

A state is split at its top level and no further. `shape` says which fields it has, in their order, and so how the
text is put together again; a state that would not come back exactly (no object, spaces, a name twice) stays whole.
`shred` puts everything together again before it gives anything away, and compares. Pure; no file is touched here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.archive.columns import INTEGER, TEXT, Column, packed, unpacked
from shared.errors import AuditFailed

FIELDS_MAX = 128  # columns of a file; what has other names stays whole
WHOLE = ""  # the shape of a state that was not split
STATE, FIELD, REST, FORM = "state", "state.", "text.", b"form"
NO_KEY, OWN_KEY, KEY = 0, 1, 2  # none; request id, tab, stream; another, in `request_key`

# Often the same value as another field of the same event; then it is stored once.
SAME_AS = {"call": "request_id", "recorded_at": "at"}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Row(NamedTuple):
    """An event as stored, whole. `state`: its exact bytes."""

    position: int
    stream: str
    version: int
    topic: str
    state: bytes
    key: str | None
    trace: str | None


def fields_of(state: bytes) -> dict[str, bytes]:
    """The JSON text of each field of a state that can be split; none of one that cannot."""
    try:
        found = _split(state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: bytes(raw) for name, raw in found.items()}


def shred(rows: Sequence[Row]) -> Any:
    """The events as an Arrow table. Raises AuditFailed for what no log can contain."""
    try:
        pa.array([row.state for row in rows], pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        raise AuditFailed("a state is not text in UTF-8") from None
    splitter = _Splitter(len(rows))
    whole: list[bytes | None] = []
    shapes: list[str] = []
    kinds: list[int] = []
    keys: list[str | None] = []
    for n, row in enumerate(rows):
        shape, request_id = splitter.split(n, row.state)
        shapes.append(shape)
        whole.append(row.state if shape == WHOLE else None)
        own = row.key is not None and row.key.encode() == request_id[1:-1] + b"\t" + row.stream.encode()
        kinds.append(NO_KEY if row.key is None else OWN_KEY if own else KEY)
        keys.append(None if own else row.key)
    columns: dict[str, tuple[Any, bytes | None]] = {
        "position": (pa.array([row.position for row in rows], pa.int64()), None),
        "stream": (pa.array([row.stream for row in rows], pa.string()), None),
        "version": (pa.array([row.version for row in rows], pa.int64()), None),
        "topic": (pa.array([row.topic for row in rows], pa.string()), None),
        "trace": (pa.array([row.trace for row in rows], pa.string()), None),
        "key_kind": (pa.array(kinds, pa.int8()), None),
        "request_key": (pa.array(keys, pa.string()), None),
        "shape": (pa.array(shapes, pa.string()), None),
        STATE: (pa.array(whole, pa.binary()), None),
    }
    for name, texts in splitter.columns.items():
        column = packed(pa.array(texts, pa.binary()))
        columns[FIELD + name] = (column.values, column.form.encode())
        if column.rest is not None:
            columns[REST + name] = (column.rest, TEXT.encode())
    schema = pa.schema(
        [pa.field(n, a.type, metadata=None if f is None else {FORM: f}) for n, (a, f) in columns.items()]
    )
    table = pa.Table.from_arrays([array for array, _ in columns.values()], schema=schema)
    _verify(rows, table)
    return table


def _verify(rows: Sequence[Row], table: Any) -> None:
    again = states(table)
    if not again.equals(pa.array([row.state for row in rows], pa.binary())):
        raise AssertionError("a state does not come back as it was stored")
    if request_keys(table).to_pylist() != [row.key for row in rows]:
        raise AssertionError("a request key does not come back as it was stored")


class _Shape(NamedTuple):
    """States with the same fields in the same order. `bare`: the bytes that are in no value."""

    words: tuple[str, ...]  # as `shape` has them, by which of `same` hold
    bare: int
    same: tuple[tuple[str, str], ...]
    columns: tuple[list[bytes | None], ...]


class _Splitter:
    """Collects the fields of states by name."""

    def __init__(self, count: int) -> None:
        self.columns: dict[str, list[bytes | None]] = {}
        self._count = count
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def split(self, n: int, state: bytes) -> tuple[str, bytes]:
        """Put the fields of the n-th state in their columns; its shape, and its request id as JSON."""
        fields = fields_of(state)
        names = tuple(fields)
        shape = self._shapes.get(names) or self._new(names)
        values = fields.values()
        # Spaces, escapes in a name and a name that comes twice all make a state longer than what we put together.
        if shape is None or shape.bare + sum(map(len, values)) != len(state):
            return WHOLE, b""
        for column, value in zip(shape.columns, values, strict=True):
            column[n] = value
        which = 0
        for bit, (name, of) in enumerate(shape.same):
            if fields[name] == fields[of]:
                self.columns[name][n] = None
                which |= 1 << bit
        return shape.words[which], fields.get("request_id", b"")

    def _new(self, names: tuple[str, ...]) -> _Shape | None:
        new = [name for name in names if name not in self.columns]
        if not names or len(self.columns) + len(new) > FIELDS_MAX or not all(map(_NAME.match, names)):
            return None
        self.columns.update({name: [None] * self._count for name in new})
        same = tuple((name, of) for name, of in SAME_AS.items() if name in names and of in names)
        words = tuple(
            " ".join(_word(name, same, which) for name in names) for which in range(1 << len(same))
        )  # fmt: skip
        bare = sum(len(f',"{name}":') for name in names) + 1
        self._shapes[names] = _Shape(words, bare, same, tuple(self.columns[name] for name in names))
        return self._shapes[names]


def _word(name: str, same: Sequence[tuple[str, str]], which: int) -> str:
    for bit, (one, of) in enumerate(same):
        if one == name and which >> bit & 1:
            return f"{name}={of}"
    return name


# --- and back --------------------------------------------------------------------------------
def states(table: Any, texts: dict[str, Any] | None = None) -> Any:
    """The states of these events, in order, as an array of binary. `texts` keeps what the fields were made into. Raises
    AuditFailed for columns that are none."""
    shapes = array_of(table, "shape")
    if not pa.types.is_dictionary(shapes.type):
        shapes = pc.dictionary_encode(shapes)
    numbers = shapes.indices.to_numpy(zero_copy_only=False)
    texts = {} if texts is None else texts
    parts, places = [], []
    for number, shape in enumerate(shapes.dictionary.to_pylist()):
        where = np.flatnonzero(numbers == number)
        if not len(where):
            continue
        every = len(where) == len(table)
        rows = None if every else pa.array(where)
        parts.append(_joined(table, texts, shape, rows))
        places.append(where)
    if not parts:
        return pa.array([], pa.binary())
    if len(parts) == 1:
        return parts[0]
    order = np.empty(len(table), dtype=np.int64)
    order[np.concatenate(places)] = np.arange(len(table))
    return pa.concat_arrays(parts).take(pa.array(order))


def request_keys(table: Any) -> Any:
    """The request keys of these events, as an array of strings."""
    kinds = array_of(table, "key_kind")
    own = pc.equal(kinds, OWN_KEY)
    keys = array_of(table, "request_key")
    if not pc.any(own).as_py():
        return keys
    names = pc.utf8_slice_codeunits(field_of(table, "request_id").cast(pa.string()), 1, -1)
    return pc.if_else(own, pc.binary_join_element_wise(names, array_of(table, "stream"), "\t"), keys)


def _joined(table: Any, texts: dict[str, Any], shape: str, rows: Any) -> Any:
    if shape == WHOLE:
        whole = array_of(table, STATE)
        return _complete(whole if rows is None else whole.take(rows))
    pieces: list[Any] = []
    lead = "{"
    for word in shape.split(" "):
        name, _, of = word.partition("=")
        source = of or name
        if source not in texts:
            texts[source] = field_of(table, source)
        pieces += [_text(f'{lead}"{name}":'), texts[source] if rows is None else texts[source].take(rows)]
        lead = ","
    return _complete(pc.binary_join_element_wise(*pieces, _text("}"), _text("")))


def _complete(joined: Any) -> Any:
    if joined.null_count:
        raise AuditFailed("archive's columns do not fit the shapes of its events")
    return joined


@functools.lru_cache(maxsize=4096)
def _text(text: str) -> Any:
    """As Arrow has it. Kept: where there is no pandas, Arrow looks for it at each, 0.25 ms."""
    return pa.scalar(text.encode())


def field_of(table: Any, name: str) -> Any:
    """A field's JSON texts, exactly; null where an event has none."""
    index = table.schema.get_field_index(FIELD + name)
    if index < 0:
        raise AuditFailed(f"archive has no column for the field {name!r} of its events")
    form = (table.schema.field(index).metadata or {}).get(FORM, b"").decode()
    rest = array_of(table, REST + name) if REST + name in table.column_names else None
    texts = unpacked(Column(form, array_of(table, FIELD + name), rest))
    if texts.type != pa.binary():
        raise AuditFailed(f"archive's column of {name!r} is of the type {texts.type}")
    return texts


def integers_of(table: Any, name: str) -> Any:
    """A field that is an integer wherever it is there, as int64; None for any other."""
    index = table.schema.get_field_index(FIELD + name)
    if index < 0 or REST + name in table.column_names:
        return None
    form = (table.schema.field(index).metadata or {}).get(FORM, b"").decode()
    values = array_of(table, FIELD + name)
    return values if form == INTEGER and values.type == pa.int64() else None


def array_of(table: Any, name: str) -> Any:
    """A column in one piece."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return column
