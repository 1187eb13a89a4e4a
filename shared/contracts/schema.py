"""A marshmallow schema for every struct of the published language, derived from it.

Commands are decoded by msgspec, which is fast and stops at the first complaint; only a command that
is refused is loaded again by its schema, which names every bad field with its path. One
definition, two speeds. The reference documentation is written from the same schemas.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast

import marshmallow as ma
import msgspec
from msgspec import inspect as mi

from shared.clock import EARLIEST, LATEST
from shared.contracts.base import Command
from shared.errors import MalformedCommand

S = TypeVar("S", bound=msgspec.Struct)
K = TypeVar("K", bound=Command)

FIELDS_REPORTED_MAX = 100  # a hostile command must not make its own refusal huge


def schema_of(struct: type[msgspec.Struct]) -> type[ma.Schema]:
    """The marshmallow schema class of a struct; cached, named after it."""
    return _schema_of(struct)


def field_of(kind: Any) -> ma.fields.Field[Any]:
    """The marshmallow field of a type: nested for a struct, plain for an annotated integer or string."""
    return _field(mi.type_info(kind))


@functools.cache
def _schema_of(struct: type[msgspec.Struct]) -> type[ma.Schema]:
    info = cast(mi.StructType, mi.type_info(struct))
    fields: dict[str, Any] = {f.name: _field(f.type, f) for f in info.fields}
    unknown = ma.RAISE if info.forbid_unknown_fields else ma.EXCLUDE

    def check_whole(_self: ma.Schema, data: dict[str, Any], **_: Any) -> None:
        try:
            msgspec.convert(data, struct, strict=True)
        except msgspec.ValidationError as error:
            raise ma.ValidationError(str(error)) from None

    return type(
        struct.__name__,
        (ma.Schema,),
        {
            "__doc__": struct.__doc__,
            "Meta": type("Meta", (), {"unknown": unknown}),
            "check_whole": ma.validates_schema(skip_on_field_errors=True)(check_whole),
            **fields,
        },
    )


def _field(kind: mi.Type, field: mi.Field | None = None) -> ma.fields.Field[Any]:
    kwargs: dict[str, Any] = {"required": False, "allow_none": False, "metadata": {}}
    if field is not None:
        kwargs["required"] = field.required
        if not field.required and field.default is not msgspec.NODEFAULT:
            kwargs["metadata"]["default"] = field.default
    while isinstance(kind, mi.Metadata):
        kwargs["metadata"].update({"description": (kind.extra_json_schema or {}).get("description", "")})
        kind = kind.type
    if isinstance(kind, mi.UnionType):
        others = [t for t in kind.types if not isinstance(t, mi.NoneType)]
        assert len(others) == 1, "only optional unions are published"
        kwargs["allow_none"] = True
        inner = others[0]
        while isinstance(inner, mi.Metadata):
            kwargs["metadata"].update({"description": (inner.extra_json_schema or {}).get("description", "")})
            inner = inner.type
        kind = inner
    return _typed(kind, kwargs)


def _typed(kind: mi.Type, kwargs: dict[str, Any]) -> ma.fields.Field[Any]:
    match kind:
        case mi.IntType():
            limits = ma.validate.Range(min=kind.ge, max=kind.le)
            return ma.fields.Integer(strict=True, validate=limits, **kwargs)
        case mi.StrType():
            checks: list[Any] = [ma.validate.Length(max=kind.max_length)] if kind.max_length else []
            checks += [ma.validate.Regexp(kind.pattern)] if kind.pattern else []
            return ma.fields.String(validate=checks, **kwargs)
        case mi.BoolType():
            return ma.fields.Boolean(truthy={True}, falsy={False}, **kwargs)
        case mi.DateTimeType():
            return ma.fields.AwareDateTime(format="iso", **kwargs)
        case mi.LiteralType():
            return ma.fields.String(validate=ma.validate.OneOf(kind.values), **kwargs)
        case mi.StructType():
            if kind.array_like:
                return ma.fields.Tuple(tuple(_field(f.type) for f in kind.fields), **kwargs)
            return ma.fields.Nested(_schema_of(kind.cls), **kwargs)
        case mi.VarTupleType() | mi.ListType():
            return ma.fields.List(_field(kind.item_type), **kwargs)
        case mi.DictType():
            return ma.fields.Dict(keys=_field(kind.key_type), values=_field(kind.value_type), **kwargs)
        case mi.AnyType():
            return ma.fields.Raw(**(kwargs | {"allow_none": True}))
        case _:
            raise TypeError(f"no marshmallow field for {kind!r}")


def parse(command: type[K], fields: Any) -> K:
    """The command made of `fields` (a mapping as decoded from JSON).

    Raises MalformedCommand whose `details.fields` maps the path of every bad field to its complaints.
    """
    try:
        parsed = msgspec.convert(fields, command, strict=True)
    except (msgspec.ValidationError, RecursionError, UnicodeError) as error:
        raise MalformedCommand(
            f"{command.NAME or command.__name__}: malformed command",
            {"command": command.NAME or command.__name__, "fields": complaints(command, fields, error)},
        ) from None
    refuse_ends_of_time(parsed)
    return parsed


def refuse_ends_of_time(parsed: Command) -> None:
    """Raises MalformedCommand for an instant that no calendar arithmetic would survive."""
    for name in _instants(type(parsed)):
        at = getattr(parsed, name)
        if at is not None and not EARLIEST <= at <= LATEST:
            raise MalformedCommand(
                f"{parsed.NAME or type(parsed).__name__}: malformed command",
                {"fields": {name: [f"must be from {EARLIEST.isoformat()} to {LATEST.isoformat()}"]}},
            )


@functools.cache
def _instants(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of a struct that are instants."""
    info = cast(mi.StructType, mi.type_info(struct))
    return tuple(f.name for f in info.fields if isinstance(_plain(f.type), mi.DateTimeType))


def _plain(kind: mi.Type) -> mi.Type:
    """A type without its metadata and without None."""
    while isinstance(kind, mi.Metadata | mi.UnionType):
        if isinstance(kind, mi.Metadata):
            kind = kind.type
        else:
            kind = next(t for t in kind.types if not isinstance(t, mi.NoneType))
    return kind


def complaints(
    struct: type[msgspec.Struct], fields: Any, error: Exception, most: int = FIELDS_REPORTED_MAX
) -> dict[str, list[str]]:
    """Path of every bad field to its complaints, of `most` fields; `_` stands for the whole."""
    if not isinstance(fields, dict):
        return {"_": ["must be an object"]}
    found: dict[str, list[str]] = {}
    try:
        _flatten(_schema_of(struct)().validate(fields), "", found, most)
    except Exception:  # noqa: BLE001 - whatever a hostile value does to the explanation, the refusal stands
        found = {}
    return found or {"_": [_encodable(error)[:500]]}


def _flatten(errors: Any, path: str, found: dict[str, list[str]], most: int) -> None:
    if len(found) >= most:
        return
    if isinstance(errors, dict):
        for key, value in errors.items():
            name = "" if key == "_schema" else _encodable(key)[:100]
            _flatten(value, f"{path}.{name}".strip(".") if name else path, found, most)
    else:
        found.setdefault(path or "_", []).extend(_encodable(e)[:500] for e in errors)


def _encodable(hostile: object) -> str:
    """As text that can be sent: a lone surrogate could not."""
    return str(hostile).encode(errors="backslashreplace").decode()
