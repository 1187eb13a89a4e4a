"""The leaf encoding: its published vectors, and that no two events share bytes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AuditFailed
from shared.transparency import leaf, merkle

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "leaf-encoding.md"
EVENT = leaf.Leaf("quota", 7, "north/acct-1", 3, "quota.Debited:1", b'{"amount":5}')

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
integers = st.integers(1, 2**63 - 1)
leaves = st.builds(leaf.Leaf, texts, integers, texts, integers, texts, st.binary(max_size=16))


def published() -> list[dict[str, Any]]:
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    vectors: list[dict[str, Any]] = json.loads(blocks[0])
    assert len(vectors) == 3
    return vectors


def test_published_vectors() -> None:
    tree = merkle.Tree()
    for v in published():
        event = leaf.Leaf(v["log"], v["position"], v["stream"], v["version"], v["topic"], v["state"].encode())
        tree.append(event.hash())
        assert event.encode().hex() == v["encoded_hex"]
        assert event.hash().hex() == v["leaf_hash_hex"]
        assert tree.root().hex() == v["root_hex"]
        assert event.index == tree.size - 1


def test_the_bytes_spelled_out() -> None:
    event = leaf.Leaf("ab", 1, "", 2, "é", b"{}")
    assert event.encode() == (
        b"tokengrid/event-leaf/v1\n"
        b"\0\0\0\0\0\0\0\x02ab"
        b"\0\0\0\0\0\0\0\x01"
        b"\0\0\0\0\0\0\0\0"
        b"\0\0\0\0\0\0\0\x02"
        b"\0\0\0\0\0\0\0\x02\xc3\xa9"
        b"\0\0\0\0\0\0\0\x02{}"
    )


@given(leaves)
def test_decoding_undoes_encoding(event: leaf.Leaf) -> None:
    assert leaf.decode(event.encode()) == event


@given(leaves, leaves)
def test_different_events_have_different_bytes(one: leaf.Leaf, other: leaf.Leaf) -> None:
    assert (one.encode() == other.encode()) == (one == other)


@given(leaves)
def test_many_are_hashed_as_one(event: leaf.Leaf) -> None:
    hashed = leaf.hasher(event.log)
    assert hashed(event.position, event.stream, event.version, event.topic, event.state) == event.hash()
    with pytest.raises(AuditFailed):
        hashed(0, event.stream, event.version, event.topic, event.state)


@pytest.mark.parametrize("separator", ["|", "\n", "\0", ":", "/", ""])
def test_a_separator_inside_a_field_does_not_move_the_border(separator: str) -> None:
    one = replace(EVENT, stream=f"a{separator}b", topic="c")
    other = replace(EVENT, stream="a", topic=f"b{separator}c")
    assert one.hash() != other.hash()


@pytest.mark.parametrize(
    "change", [{"log": "billing"}, {"position": 8}, {"stream": "x"}, {"version": 4}, {"topic": "x"}]
)
def test_every_field_is_in_the_hash(change: dict[str, Any]) -> None:
    assert replace(EVENT, **change).hash() != EVENT.hash()


def test_the_state_is_hashed_as_stored_not_as_understood() -> None:
    assert replace(EVENT, state=b'{"amount": 5}').hash() != EVENT.hash()


@pytest.mark.parametrize(
    "change",
    [
        {"position": 0},
        {"position": -1},
        {"position": 2**63},
        {"version": 0},
        {"version": True},
        {"version": 1.0},
        {"log": "\ud800"},
        {"stream": None},
        {"topic": b"t"},
        {"state": "{}"},
    ],
)
def test_what_no_log_contains_has_no_encoding(change: dict[str, Any]) -> None:
    with pytest.raises(AuditFailed):
        replace(EVENT, **change).encode()


def test_only_whole_leaves_are_decoded() -> None:
    whole = EVENT.encode()
    for length in range(len(whole)):
        with pytest.raises(AuditFailed):
            leaf.decode(whole[:length])
    with pytest.raises(AuditFailed):
        leaf.decode(whole + b"\0")


@given(st.binary(max_size=120))
def test_junk_is_refused_or_is_a_leaf(junk: bytes) -> None:
    data = leaf.TAG + junk
    try:
        event = leaf.decode(data)
    except AuditFailed:
        return
    assert event.encode() == data


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(AuditFailed):
        leaf.decode(EVENT.encode().replace(b"quota.Debited", b"quota.\xff\xffbited"))
