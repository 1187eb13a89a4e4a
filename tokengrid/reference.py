"""The reference documentation, written from the contracts: methods, events, errors, configuration.

`python -m tokengrid.reference` writes docs/reference; with `--check` it fails if anything there is stale.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import marshmallow as ma
import msgspec

from shared import errors
from shared.config import SERVICES, Settings
from shared.contracts import base
from shared.contracts.answers import LOG_METHODS
from shared.contracts.methods import Method
from shared.contracts.schema import schema_of

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HEADER = "<!-- Written by `make docs` from the contracts; do not edit. -->\n\n"
HAND_WRITTEN = {"evidence.md", "leaf-encoding.md"}


def pages() -> dict[str, str]:
    """File name to content, for everything that is generated."""
    for service in SERVICES:
        importlib.import_module(f"shared.contracts.{service}")
    made = {f"{service}.md": _service(service) for service in SERVICES}
    made["errors.md"] = _errors()
    made["configuration.md"] = _configuration()
    made["README.md"] = _contents(made)
    return made


def _service(service: str) -> str:
    contract = importlib.import_module(f"shared.contracts.{service}")
    methods: tuple[Method, ...] = (*importlib.import_module(f"services.{service}.schemas").METHODS, *LOG_METHODS)
    parts = [HEADER, f"# {service}\n\n{_prose(contract)}\n\n## Methods\n"]
    parts += [_method(service, method) for method in methods]
    parts.append("\n## Events\n")
    events = [cls for topic, cls in base.EVENTS.items() if topic.startswith(f"{service}.")]
    for cls in events:
        parts.append(f"\n### `{cls.TOPIC}`\n\n{_prose(cls)}\n\n{_fields(cls)}")
    parts += _structures(service, [*(m.takes for m in methods if m.takes), *events, *_answers(methods)])
    return "".join(parts)


def _method(service: str, method: Method) -> str:
    lines = [f"\n### `{service}.{method.name}`\n\n"]
    if method.takes is not None:
        prose = _prose(method.takes)
        lines.append(f"{prose}\n\n" if prose else "")
        lines.append(_fields(method.takes) + "\n")
    lines.append(f"Gives: {method.gives} {_answer(method)}")
    if method.refusals:
        in_order = sorted(method.refusals, key=_precedence)
        lines.append("\nRefusals: " + ", ".join(f"[`{r.__name__}`](errors.md)" for r in in_order) + ".\n")
    return "".join(lines)


def _answer(method: Method) -> str:
    """What the answer is made of: the fields of its struct, of an event and a receipt, or a bare value."""
    field = method.answer_field()
    list_of = "a list of " if method.many else ""
    if method.receipt is not None:
        event = method.answer.TOPIC
        anchor = event.translate(str.maketrans("", "", ".:")).lower()
        return f"Answer: {list_of}the fields of [`{event}`](#{anchor}), and:\n\n{_fields(method.receipt)}"
    item = field.inner if isinstance(field, ma.fields.List) else field
    if not isinstance(item, ma.fields.Nested):
        return f"Answer: {list_of}{_type(item)}.\n"
    return f"Answer: {list_of}`{method.answer.__name__}`. {_prose(method.answer)}\n\n{_fields(method.answer)}"


def _answers(methods: Iterable[Method]) -> list[type[msgspec.Struct]]:
    """The structs that answers are made of."""
    return [a for m in methods for a in (m.answer, m.receipt) if isinstance(a, type) and issubclass(a, msgspec.Struct)]


def _precedence(error: type[errors.TokengridError]) -> int:
    order = errors.PRECEDENCE
    return order.index(error) if error in order else len(order)


def _structures(service: str, roots: Iterable[type[msgspec.Struct]]) -> list[str]:
    """The parts that methods and events nest, each described once."""
    seen: dict[str, type[ma.Schema]] = {}

    def walk(schema: type[ma.Schema]) -> None:
        for field in schema().fields.values():
            inner = _innermost(field)
            if isinstance(inner, ma.fields.Nested):
                nested = type(inner.schema)
                if nested.__name__ not in seen:
                    seen[nested.__name__] = nested
                    walk(nested)

    for root in roots:
        walk(schema_of(root))
    parts = [f"\n## Structures of {service}\n"] if seen else []
    for name in sorted(seen):
        parts.append(f"\n### `{name}`\n\n{_prose(seen[name])}\n\n{_rows(seen[name])}")
    return parts


def _innermost(field: Any) -> Any:
    """The field of a list's or object's values, however deep."""
    match field:
        case ma.fields.List():
            return _innermost(field.inner)
        case ma.fields.Dict():
            return _innermost(field.value_field)
        case _:
            return field


def _fields(struct: type[msgspec.Struct]) -> str:
    return _rows(schema_of(struct))


def _rows(schema: type[ma.Schema]) -> str:
    fields = schema().fields
    if not fields:
        return "No fields.\n"
    lines = ["| field | type | | meaning |\n|---|---|---|---|\n"]
    for name, field in fields.items():
        need = "required" if field.required else _default(field)
        need += ", may be null" if field.required and field.allow_none else ""
        meaning = str(field.metadata.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(field)} | {need} | {meaning} |\n")
    return "".join(lines)


def _default(field: Any) -> str:
    default = field.metadata.get("default")
    if default is None or isinstance(default, msgspec.Struct):
        return "optional"
    return f"default `{default!r}`" if not isinstance(default, tuple) else "optional"


def _type(field: Any) -> str:
    match field:
        case ma.fields.Nested():
            return f"`{type(field.schema).__name__}`"
        case ma.fields.List():
            return f"list of {_type(field.inner)}"
        case ma.fields.Tuple():
            return "`[" + ", ".join(_type(f) for f in field.tuple_fields) + "]`"
        case ma.fields.Dict():
            values = _type(field.value_field)
            return "object" if values == "any" else f"object of {values}"
        case ma.fields.Raw():
            return "any"
        case ma.fields.AwareDateTime():
            return "instant"
        case ma.fields.Integer():
            limits = [v for v in field.validators if isinstance(v, ma.validate.Range)]
            bounds = [(r.min, r.max) for r in limits if r.min is not None or r.max is not None]
            return "integer" + "".join(f" {lo}…{'' if hi is None else hi}" for lo, hi in bounds)
        case ma.fields.Boolean():
            return "boolean"
        case ma.fields.String():
            choices = [v.choices for v in field.validators if isinstance(v, ma.validate.OneOf)]
            return " or ".join(f"`{c}`" for c in choices[0]) if choices else "string"
        case _:
            raise TypeError(f"no words for {field!r}")


def _errors() -> str:
    ordered = [*errors.PRECEDENCE, *(e for e in errors.catalogue().values() if e not in errors.PRECEDENCE)]
    lines = [
        HEADER,
        "# Errors\n\nThe code is the class name; a remote client finds it as `exc_type`. Where a command breaks "
        "several rules, the first in this table is named. A refused command has changed nothing.\n\n"
        "| code | meaning | what to do |\n|---|---|---|\n",
    ]
    for error in ordered:
        retry = " (retry)" if error.retryable else ""
        lines.append(f"| `{error.__name__}`{retry} | {_prose(error)} | {error.advice} |\n")
    return "".join(lines)


def _configuration() -> str:
    lines = [
        HEADER,
        "# Configuration\n\nEnvironment variables, over the YAML file that `TOKENGRID_CONFIG_FILE` names, over these "
        "defaults. The defaults are the embedded shape.\n\n| variable | default | meaning |\n|---|---|---|\n",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default if field.default is not None else ""
        lines.append(f"| `TOKENGRID_{name.upper()}` | `{default}` | {field.description} |\n")
    return "".join(lines)


def _contents(made: dict[str, str]) -> str:
    lines = [HEADER, "# Reference\n\n"]
    for name in sorted({*made, *HAND_WRITTEN} - {"README.md"}):
        lines.append(f"- [{name.removesuffix('.md')}]({name})\n")
    return "".join(lines)


def _prose(thing: Any) -> str:
    """A docstring as one paragraph; inherited ones say nothing about the thing itself."""
    text = thing.__dict__.get("__doc__") or ""
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    made = pages()
    if "--check" in arguments:
        found = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.glob("*.md") if p.name not in HAND_WRITTEN}
        stale = sorted(name for name in {*made, *found} if made.get(name) != found.get(name))
        if stale:
            print(f"docs/reference is stale: {', '.join(stale)}. Run `make docs`.", file=sys.stderr)  # noqa: T201
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (FOLDER / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
