"""Clients' commands on their way, and what a run tells of them and of their answers, in a few words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Request:
    """A client's command, sent until it is answered."""

    fields: dict[str, Any]
    answered: bool = False


def sent(request: Request) -> dict[str, Any]:
    return {name: value for name, value in request.fields.items() if value is not None}


def name_of(request: Request) -> str:
    fields = request.fields
    return f"{fields['command']} {fields['account']}:{fields['request_id']}"


def in_short(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return str(answer["error"]["code"])
    return f"{answer['ok']['kind']} at {answer['ok']['position']}{', again' if answer['ok']['replayed'] else ''}"
