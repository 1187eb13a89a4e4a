"""Tells a story of an account, a line at a time, to the real application, and says in words what came of each line."""

from __future__ import annotations

import re
from typing import Any

from services.quota.schemas import Sweep
from shared.contracts import quota as q
from shared.errors import TokengridError
from tests.unit.quota_world import World

POINT = 1000
KIMI = {"model": "kimi-k2.5"}


class Story:
    """Reads the lines of a story to the real application, and what came of them back as a line."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kinds: set[str] = set()

    def line(self, text: str) -> str:
        """What a command came to, in the words of the table."""
        name, _, words = text.rpartition(": ")
        verb, *rest = words.split()
        options = dict(word.split("=") for word in rest if "=" in word)
        plain = [word for word in rest if "=" not in word]
        if verb == "=":
            return self._has(plain)
        if verb == "wait":
            self.world.clock.advance(int(plain[0]))
            return ""
        before = self.world.app.log.head()
        try:
            if verb == "sweep":
                self._sweep()
            else:
                command, fields = self._command(verb, plain, options)
                if name or "request_id" in fields:
                    fields.setdefault("request_id", name)
                self.world.do(command, **fields)
        except TokengridError as refusal:
            found = [f"{key} {int(refusal.details[key]) // POINT}" for key in ("available", "reversible")
                     if key in refusal.details]  # fmt: skip
            own = refusal.code in EVENTS  # a refusal that is called as an event is
            return " ".join([refusal.code + "!" * own, *found])
        return self._told(self.world.app.log.read(before, 1)[0].event)

    def _command(self, verb: str, plain: list[str], options: dict[str, str]) -> tuple[str, dict[str, Any]]:
        points = [int(word) * POINT for word in plain if word.isdigit()]
        names = [word for word in plain if not word.isdigit() and word not in ("part", "partial", "overdraw")]
        now = self.world.clock()
        match verb:
            case "open":
                return "open_account", {"credit_limit": int(options.get("credit", 0)) * POINT}
            case "grant":
                given: dict[str, Any] = {"request_id": names[0], "amount": points[0], "source": "purchase"}
                if "priority" in options:
                    given["priority"] = int(options["priority"])
                if "for" in options:
                    given["scope"] = {"families": [options["for"]]}
                for option, field in (("from", "effective_at"), ("until", "expires_at")):
                    if option in options:
                        at = now.timestamp() + int(options[option])
                        given[field] = now.fromtimestamp(at, now.tzinfo).isoformat()
                return "grant", given
            case "reserve":
                ttl = int(options.get("ttl", 300))
                partial = {"accept_partial": "partial" in plain}
                return "reserve", {"request_id": names[0], "amount": points[0], "ttl_s": ttl, **partial, **KIMI}
            case "extend":
                return "extend", {"reservation": names[0], "amount": points[0]}
            case "settle":
                usage = {"input": points[0] // POINT}
                return "settle", {"reservation": names[0], "usage": usage, "final": "part" not in plain}
            case "release":
                return "release", {"reservation": names[0]}
            case "debit":
                how = "overdraw" if "overdraw" in plain else "refuse"
                return "debit", {"usage": {"input": points[0] // POINT}, "on_insufficient": how, **KIMI}
            case "reverse":
                return "reverse", {"debit": names[0], "amount": points[0] if points else None}
            case "void":
                return "void_grant", {"grant": names[0]}
            case "limit":
                return "set_credit_limit", {"credit_limit": points[0]}
            case "close":
                return "close_account", {}
        return verb, {}

    def _sweep(self) -> None:
        app = self.world.app
        app.follow_quota([e._asdict() for e in app.log.read(app.projector.position(), 5000)])
        app.sweep(Sweep())

    def _told(self, event: Any) -> str:
        self.kinds.add(type(event).__name__)
        told = [type(event).__name__]
        if hasattr(event, "amount"):
            told.append(str(event.amount // POINT))
        if draws := getattr(event, "draws", ()):
            told.append("from " + " ".join(f"{d.grant}:{d.amount // POINT}" for d in draws))
        for field, word in (("released", "released"), ("overdrawn", "owed")):
            if value := getattr(event, field, 0):
                told.append(f"{word} {value // POINT}")
        told += ["late"] * getattr(event, "late", False)
        told += ["final"] * (isinstance(event, q.PointsReserved) and event.final)
        return " ".join(told)

    def _has(self, plain: list[str]) -> str:
        balance = self.world.balance()
        words = {"available": "available", "held": "reserved", "owed": "overdrawn"}
        return " ".join(f"{word} {balance[words[word]] // POINT}" for word in plain[::2])


EVENTS = {name for name, kind in vars(q).items() if getattr(kind, "TOPIC", "").startswith(f"quota.{name}:")}


def read(world: World, text: str) -> set[str]:
    """Tell a story; the kinds of events in it."""
    story = Story(world)
    for line in filter(None, map(str.strip, text.splitlines())):
        command, arrow, expected = (part.strip() for part in line.partition("→"))
        came = story.line(command)
        if command.startswith("="):
            assert f"= {came}" == command
        elif arrow:
            assert came == re.sub(r"\s+", " ", expected), line
        else:
            assert came.partition(" ")[0] in {*EVENTS, ""}, f"{line}: {came}"
    return story.kinds
