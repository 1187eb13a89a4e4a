"""How the values of one field of many states are stored: as integers, as bytes for what is written in hex, or as text.

A form is only chosen where its values come back exactly as they were written; those that would not are kept as
text beside. Pure. It must not know what a field means.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INTEGER, UUID, TEXT = "integer", "uuid", "text"
HEX = "hex"  # with the number of bytes behind it: hex8
HEX_BYTES_MAX = 64
RARE = 10  # a form that fits fewer than all but a tenth is none

_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_HEX = r'^"(?:[0-9a-f]{2}){4,64}"$'
_UUID = r'^"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"$'
_QUOTE, _DASH = b'"'[0], b"-"[0]
# Where the 32 digits of a UUID stand between its quotes and dashes.
_UUID_WIDTH = 38
_UUID_DIGITS = np.array([n for n in range(_UUID_WIDTH) if n not in (0, 9, 14, 19, 24, 37)])
_UUID_DASHES = np.array([9, 14, 19, 24])
_UUID_GROUPS = ((1, 9), (10, 14), (15, 19), (20, 24), (25, 37))
_NIBBLES = np.zeros(256, dtype=np.uint8)
_NIBBLES[[ord(c) for c in "0123456789abcdef"]] = np.arange(16, dtype=np.uint8)


class Column(NamedTuple):
    """One field in its form. `rest`: the values, as text, that do not fit the form; null where there are none."""

    form: str
    values: Any
    rest: Any | None


def packed(texts: Any) -> Column:
    """The shortest form of a field's values, given as an array of JSON texts (binary, null: absent)."""
    there = len(texts) - texts.null_count
    for form, fits in _candidates(texts):
        count = pc.sum(fits).as_py() or 0
        if count * RARE >= there * (RARE - 1) and count:
            whole = fits if count < there else None
            chosen = texts if whole is None else pc.if_else(whole, texts, None)
            rest = None if whole is None else pc.if_else(pc.fill_null(whole, False), None, texts)
            return Column(form, _to_form(form, chosen), rest)
    return Column(TEXT, texts, None)


def unpacked(column: Column) -> Any:
    """The JSON texts again, exactly."""
    texts = _from_form(column.form, column.values)
    return texts if column.rest is None else pc.coalesce(texts, column.rest)


def _candidates(texts: Any) -> Any:
    strings = texts.cast(pa.string())
    yield INTEGER, pc.match_substring_regex(strings, _INTEGER)
    widths = pc.unique(pc.drop_null(pc.binary_length(texts))).to_pylist()
    if _UUID_WIDTH in widths:
        yield UUID, pc.match_substring_regex(strings, _UUID)
    for width in sorted(widths, reverse=True)[:4]:
        if 8 <= (width - 2) // 2 <= HEX_BYTES_MAX and not width % 2:
            fits = pc.and_(pc.equal(pc.binary_length(texts), width), pc.match_substring_regex(strings, _HEX))
            yield f"{HEX}{(width - 2) // 2}", fits


def _to_form(form: str, texts: Any) -> Any:
    if form == INTEGER:
        return texts.cast(pa.string()).cast(pa.int64())
    width = _UUID_WIDTH if form == UUID else 2 * int(form.removeprefix(HEX)) + 2
    digits = _UUID_DIGITS if form == UUID else np.arange(1, width - 1)
    there = pc.drop_null(texts)
    text = np.frombuffer(b"".join(there.to_pylist()), dtype=np.uint8).reshape(len(there), width)
    nibbles = _NIBBLES[text[:, digits]]
    raw = np.ascontiguousarray(nibbles[:, ::2] << 4 | nibbles[:, 1::2])
    return _spread(_fixed(raw), texts)


def _from_form(form: str, values: Any) -> Any:
    if form == TEXT:
        return values
    if form == INTEGER:
        return values.cast(pa.string()).cast(pa.binary())
    there = pc.drop_null(values)
    size = there.type.byte_width
    raw = np.frombuffer(there.buffers()[1], dtype=np.uint8, count=len(there) * size, offset=there.offset * size)
    digits = np.frombuffer(raw.tobytes().hex().encode(), dtype=np.uint8).reshape(len(there), 2 * size)
    width = _UUID_WIDTH if form == UUID else 2 * size + 2
    text = np.full((len(there), width), _QUOTE, dtype=np.uint8)
    if form == UUID:
        for start, end in _UUID_GROUPS:  # a group of digits at a time: five copies instead of 32
            text[:, start:end], digits = digits[:, : end - start], digits[:, end - start :]
        text[:, _UUID_DASHES] = _DASH
    else:
        text[:, 1:-1] = digits
    return _spread(_fixed(text), values).cast(pa.binary())


def _fixed(rows: Any) -> Any:
    """An array of byte strings that are all as long as a row of this matrix."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )


def _spread(dense: Any, like: Any) -> Any:
    """The values again where `like` has some, null elsewhere."""
    if not like.null_count:
        return dense
    valid = pc.is_valid(like).to_numpy(zero_copy_only=False)
    return dense.take(pa.array(np.where(valid, np.cumsum(valid) - 1, 0), mask=~valid))
