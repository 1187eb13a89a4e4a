"""States as columns and back: whatever a log has, the same bytes come back; columns are typed where that is exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from services.audit.archive.writing import write_table
from shared.archive.columns import HEX, INTEGER, TEXT, UUID, packed, unpacked
from shared.archive.hashing import leaf_hashes
from shared.archive.reading import HASHED
from shared.archive.shredding import Row, array_of, request_keys, shred, states
from shared.errors import AuditFailed
from shared.transparency.leaf import Leaf

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12), st.uuids().map(str),
    st.binary(max_size=20).map(bytes.hex),
)  # fmt: skip
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS, max_size=3))
NAMES = st.one_of(st.sampled_from(["request_id", "call", "at", "recorded_at", "amount", "usage"]), st.text(max_size=6))
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
TIGHT = OBJECTS.map(lambda o: json.dumps(o, separators=(",", ":"), ensure_ascii=False))
LOOSE = st.tuples(OBJECTS, st.sampled_from([None, 1]), st.booleans()).map(
    lambda t: json.dumps(t[0], indent=t[1], ensure_ascii=t[2])
)
STATES = st.one_of(TIGHT, TIGHT, LOOSE, st.text(max_size=30)).map(lambda text: text.encode(errors="replace"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = st.one_of(st.none(), TEXTS)

ODD = [
    b"", b"null", b"[]", b"{}", b'{"a":1,"a":2}', b'{ "a":1}', b'{"a":1}\n', b'{"\\u0061":1}', b'{"a":1', b'{"a":tru}',
    b'{"a":"\\ud800"}', b'{"a":00}', b'{"a":-0}', b'{"a":1e400}', b'{"a":123456789012345678901234567890}',
    b'{"A B":1}', b'{"state":1,"shape":2,"position":3}', b'{"' + b"a" * 100 + b'":1}', b"{" * 5000,
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"request_id":"x","call":"x"}',
    b'{"call":"x","request_id":"x"}',
    b'{"request_id":7,"call":7}', json.dumps({f"f{n}": n for n in range(300)}, separators=(",", ":")).encode(),
    b'{"a":"' + b"x" * 3_000_000 + b'"}',
]  # fmt: skip


def rows_of(found: list[bytes]) -> list[Row]:
    return [Row(n, f"s{n % 3}", n, "t", state, None, None) for n, state in enumerate(found, start=1)]


@given(st.lists(st.tuples(STATES, TEXTS, KEYS, KEYS), max_size=20))
def test_every_event_comes_back(events: list[tuple[bytes, str, str | None, str | None]]) -> None:
    rows = [Row(n, stream, n, "t", state, key, trace) for n, (state, stream, key, trace) in enumerate(events, start=1)]
    table = shred(rows)
    assert states(table).to_pylist() == [row.state for row in rows]
    assert request_keys(table).to_pylist() == [row.key for row in rows]
    assert array_of(table, "trace").to_pylist() == [row.trace for row in rows]
    leaves = leaf_hashes("north", [*(array_of(table, name) for name in HASHED), states(table)])
    assert leaves == [Leaf("north", r.position, r.stream, r.version, r.topic, r.state).hash() for r in rows]


@pytest.mark.parametrize("state", ODD, ids=lambda state: repr(state[:24]))
def test_odd_states_come_back_alone_and_among_others(state: bytes, tmp_path: Path) -> None:
    usual = [json.dumps({"request_id": f"{n:032x}", "amount": n}, separators=(",", ":")).encode() for n in range(30)]
    for found in ([state], [*usual, state, *usual]):
        table = shred(rows_of(found))
        assert states(table).to_pylist() == found
        write_table(table, tmp_path / "table")
        again = pq.read_table(tmp_path / "table")
        assert states(again).to_pylist() == found


@pytest.mark.parametrize("state", [b"\xff", b'{"a":"\xff"}', b'{"\xff":1}', b'{"a":"\xed\xa0\x80"}'])
def test_what_is_no_text_is_no_state(state: bytes) -> None:
    with pytest.raises(AuditFailed, match="UTF-8"):
        shred(rows_of([b'{"a":"b"}', state]))


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        ([b"1", b"-5", None, b"999999999999999999"], INTEGER),
        ([b"1"] * 20 + [b"1.5"], INTEGER),
        ([b"1", b"2", b"x"], TEXT),
        ([b"01", b"-0", b"1e3"], TEXT),
        ([b'"0194e0a0-1234-7abc-8def-0123456789ab"', None], UUID),
        ([b'"0194E0A0-1234-7abc-8def-0123456789ab"'], TEXT),
        ([b'"0123456789abcdef"'] * 3, f"{HEX}8"),
        ([b'"0123456789abcdef"'] * 20 + [b'"0123456789abcdeg"', b"null"], f"{HEX}8"),
        ([b'"0123456789abcdeF"'] * 3, TEXT),
        ([b'"' + b"ab" * 40 + b'"'] * 3, f"{HEX}40"),
        ([None, None], TEXT),
        ([], TEXT),
    ],
)
def test_a_form_is_chosen_where_it_is_exact(texts: list[bytes | None], form: str) -> None:
    column = packed(pa.array(texts, pa.binary()))
    assert column.form == form
    assert unpacked(column).to_pylist() == texts


def test_columns_that_do_not_fit_are_refused() -> None:
    table = shred(rows_of([b'{"a":1,"b":2}', b'{"a":3,"b":4}']))
    with pytest.raises(AuditFailed):
        states(table.drop_columns(["state.b"]))
    nulls = pa.array([None, 1], pa.int64())
    index = table.schema.get_field_index("state.a")
    with pytest.raises(AuditFailed):
        states(table.set_column(index, table.schema.field(index), nulls))
    index = table.schema.get_field_index("shape")
    with pytest.raises(AuditFailed):
        states(table.set_column(index, table.schema.field(index), pa.array(["", "a b"])))
