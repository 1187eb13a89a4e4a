"""What differs between two states of a catalogue: which items are new or gone, and which fields have other values.

Pure and general: it knows no kind of item, and nothing of when or why something changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from services.catalog.domain.kinds import KINDS

Items = Mapping[tuple[str, str], Any]  # by (kind's name, key)
Fields = dict[str, tuple[Any, Any]]


class Change(NamedTuple):
    """An item whose fields differ: by path, the value before and the value after; None: not there."""

    kind: str
    key: str
    fields: Fields


class Comparison(NamedTuple):
    """`new` and `gone`: (kind, key). `unchanged`: how many items are equal."""

    new: tuple[tuple[str, str], ...]
    gone: tuple[tuple[str, str], ...]
    changed: tuple[Change, ...]
    unchanged: int


def compare(before: Items, after: Items) -> Comparison:
    """What differs, in the order of publication and of keys."""
    both = [each for each in _ordered(after) if each in before]
    changed = [Change(*each, differences(before[each], after[each])) for each in both if before[each] != after[each]]
    return Comparison(
        tuple(each for each in _ordered(after) if each not in before),
        tuple(each for each in _ordered(before) if each not in after),
        tuple(changed),
        len(both) - len(changed),
    )


def differences(before: Any, after: Any) -> Fields:
    """The fields of two items of one kind that differ, by path, such as `tiers.0.rates.input`."""
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    paths = [*new, *(path for path in old if path not in new)]
    return {path: (old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)}


_ORDER = {kind.name: number for number, kind in enumerate(KINDS)}


def _ordered(items: Items) -> list[tuple[str, str]]:
    return sorted(items, key=lambda each: (_ORDER[each[0]], each[1]))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every plain value in an item, with its path. A list of plain values is one value; an empty one is none."""
    match value:
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from _leaves(getattr(value, name), _join(path, name))
        case dict():
            for name, each in value.items():
                yield from _leaves(each, _join(path, name))
        case tuple() if any(isinstance(each, msgspec.Struct) for each in value):
            for number, each in enumerate(value):
                yield from _leaves(each, _join(path, number))
        case tuple():
            if value:
                yield path, list(value)
        case _:
            yield path, value


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)
