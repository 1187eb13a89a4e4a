"""Answers as JSON: every field is there, whether it has its default or not, so that a reader needs no schema."""

from __future__ import annotations

from typing import Any

import msgspec

from services.catalog.domain.compare import Comparison
from shared.catalogue.view import Version

Row = dict[str, Any]


def full(struct: msgspec.Struct) -> Row:
    """A struct as plain JSON values with every field, defaults included. Instants are ISO 8601."""
    return {name: _plain(getattr(struct, name)) for name in struct.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return full(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return msgspec.to_builtins(value)


def row(version: Version[Any]) -> Row:
    """One version of an item, as `schemas.ItemVersion` describes it."""
    return {
        "key": version.item.key,
        "version": version.number,
        "reference": f"{version.item.key}@{version.number}",
        "effective_from": msgspec.to_builtins(version.effective_from),
        "recorded_at": msgspec.to_builtins(version.recorded_at),
        "item": full(version.item),
    }


def comparison(found: Comparison) -> Row:
    """As `schemas.Compared` describes it."""
    return {
        "new": [{"kind": kind, "key": key} for kind, key in found.new],
        "gone": [{"kind": kind, "key": key} for kind, key in found.gone],
        "changed": [
            {"kind": each.kind, "key": each.key, "fields": {path: list(two) for path, two in each.fields.items()}}
            for each in found.changed
        ],
        "unchanged": found.unchanged,
    }
