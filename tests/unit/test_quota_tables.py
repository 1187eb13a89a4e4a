"""Burn-down, the states of a reservation and the precedence of refusals, as tables to be read.

All figures in the stories are points; a token of input costs one. A line is a command, and behind the arrow what it
must come to: what it says of itself, or its refusal; a line that begins with `=` is what the account then has.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from services.quota.domain import calls
from services.quota.schemas import Sweep
from shared import errors
from shared.contracts import quota as q
from shared.errors import TokengridError
from tests.auditing import audit
from tests.unit.quota_world import World, catalogue_page

POINT = 1000
KIMI, DEEPSEEK = {"model": "kimi-k2.5"}, {"model": "deepseek-chat"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- stories ---------------------------------------------------------------------------------------------
STORIES: dict[str, str] = {
    "a debit takes what is there, and no more": """
        open
        grant g 100         → PointsGranted 100
        debit 70            → TokensDebited 70 from g:70
        debit 40            → InsufficientQuota available 30
        = available 30
    """,
    "the lower priority burns first, then what ends sooner, then the older": """
        open
        grant older 10
        grant newer 10
        grant late 10 until=1200
        grant soon 10 until=600
        grant first 10 priority=1
        debit 45            → TokensDebited 45 from first:10 soon:10 late:10 older:10 newer:5
    """,
    "after the grants the credit limit, and then nothing": """
        open credit=50
        grant g 10
        debit 70            → InsufficientQuota available 60
        debit 60            → TokensDebited 60 from g:10 credit:50
        limit 55            → CreditLimitSet
        debit 5             → TokensDebited 5 from credit:5
        limit 40            → CreditLimitSet
        debit 1             → InsufficientQuota available 0
    """,
    "a grant is only drawn from for its models, while it is effective, and until it ends": """
        open credit=100
        grant other 10 for=deepseek
        grant later 10 from=60
        grant brief 10 until=60
        debit 5             → TokensDebited 5 from brief:5
        wait 60
        debit 15            → TokensDebited 15 from later:10 credit:5
        sweep               → GrantExpired 5
        = available 105
    """,
    "what is held is passed over": """
        open
        grant a 10
        grant b 10
        reserve h 10        → PointsReserved 10 from a:10
        debit 5             → TokensDebited 5 from b:5
        debit 6             → InsufficientQuota available 5
        release h           → ReservationReleased 10 from a:10
        debit 6             → TokensDebited 6 from a:6
    """,
    "a partial reservation gets what is there and is the last": """
        open
        grant g 10
        reserve h 12        → InsufficientQuota available 10
        reserve h 12 partial → PointsReserved 10 from g:10 final
        reserve i 1 partial → InsufficientQuota available 0
    """,
    "a stream is charged as it goes, holds more, and gives the rest back": """
        open
        grant g 100
        reserve h 30
        settle h 20 part    → TokensDebited 20 from g:20
        extend h 15         → ReservationExtended 15 from g:15
        = available 55 held 25
        settle h 5          → TokensDebited 5 from g:5 released 20
        = available 75 held 0
    """,
    "usage above the hold is drawn, then lent, then owed": """
        open credit=5
        grant g 20
        reserve h 10
        settle h 40         → TokensDebited 40 from g:20 credit:5 owed 15
        = available -15 owed 15
        debit 1             → InsufficientQuota available -15
        grant more 20
        debit 6             → InsufficientQuota available 5
        debit 5             → TokensDebited 5 from more:5
    """,
    "usage that happened is never refused": """
        open
        debit 7             → InsufficientQuota available 0
        debit 7 overdraw    → TokensDebited 7 owed 7
        suspend             → AccountSuspended
        debit 7 overdraw    → TokensDebited 7 owed 7
        = owed 14
    """,
    "what comes too late is charged all the same, and told to be late": """
        open
        grant g 20
        reserve h 20 ttl=60
        wait 60
        sweep               → ReservationExpired 20 from g:20
        debit 15            → TokensDebited 15 from g:15
        settle h 10         → TokensDebited 10 from g:5 owed 5 late
    """,
    "a reversal gives back in reverse order, what was owed first": """
        open credit=10
        grant g 10
        d: debit 25 overdraw → TokensDebited 25 from g:10 credit:10 owed 5
        reverse d 26        → ReversalExceedsDebit reversible 25
        reverse d 8         → DebitReversed 8 from credit:3 owed 5
        reverse d           → DebitReversed 17 from credit:7 g:10
        reverse d           → ReversalExceedsDebit reversible 0
        = available 20 owed 0
    """,
    "to a grant that has ended, a reversal gives back by a new one": """
        open
        grant g 10 until=60
        d: debit 10
        wait 60
        v: reverse d 4      → DebitReversed 4 from g:4
        debit 4             → TokensDebited 4 from v/0:4
    """,
    "a voided grant pays no more, and what comes back to it goes with it": """
        open
        grant g 10
        reserve h 4
        void g              → GrantVoided 6
        debit 1             → InsufficientQuota available 0
        release h           → ReservationReleased 4 from g:4
        sweep               → GrantVoided 4
        = available 0
    """,
    "a closed account is closed for good, and holds nothing": """
        open
        grant g 10
        reserve h 4
        close               → AccountClosed
        = available 10 held 0
        resume              → AccountClosed!
        settle h 1          → AccountClosed!
    """,
    "a suspended account ends what it began": """
        open
        grant g 10
        reserve h 4
        reserve i 4
        suspend             → AccountSuspended
        reserve j 1         → AccountSuspended!
        extend h 1          → AccountSuspended!
        debit 1             → AccountSuspended!
        settle h 4          → TokensDebited 4 from g:4
        release i           → ReservationReleased 4 from g:4
        resume              → AccountResumed
        debit 1             → TokensDebited 1 from g:1
    """,
}
NUMBERED = {"settle": "usage", "debit": "usage"}


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


@pytest.mark.parametrize("title", STORIES)
def test_story(world: World, title: str) -> None:
    read(world, STORIES[title])
    audit(world.app, catalogue_page())


def test_the_stories_tell_of_every_event(tmp_path: Path) -> None:
    told = set().union(*(read(World(tmp_path / str(n)), text) for n, text in enumerate(STORIES.values())))
    assert told | {"AccountOpened"} == EVENTS


# --- the states of a reservation -------------------------------------------------------------------------
SETUP = "open\ngrant g 100\nreserve h 30 ttl=60\n"
STATES = {
    "none": "open\ngrant g 100",
    "held": SETUP,
    "extended": SETUP + "extend h 10",
    "partial": SETUP + "settle h 10 part",
    "due": SETUP + "wait 60",  # its time is over, and nobody has swept
    "expired": SETUP + "wait 60\nsweep",
    "late": SETUP + "wait 60\nsweep\nsettle h 10 part",
    "settled": SETUP + "settle h 10",
    "released": SETUP + "release h",
    "settled late": SETUP + "wait 60\nsweep\nsettle h 10",
    "released late": SETUP + "wait 60\nsweep\nrelease h",
    "closed": SETUP + "close",
}
TRANSITIONS = """
    state         | extend h 5             | settle h 5 part      | settle h 5                       | release h                       | sweep
    none          | UnknownReservation     | UnknownReservation   | UnknownReservation               | UnknownReservation              | nothing
    held          | ReservationExtended 5  | TokensDebited 5      | TokensDebited 5 released 25      | ReservationReleased 30          | nothing
    extended      | ReservationExtended 5  | TokensDebited 5      | TokensDebited 5 released 35      | ReservationReleased 40          | nothing
    partial       | ReservationExtended 5  | TokensDebited 5      | TokensDebited 5 released 15      | ReservationReleased 20          | nothing
    due           | ReservationEnded       | TokensDebited 5 late | TokensDebited 5 released 25 late | ReservationReleased 30          | ReservationExpired 30
    expired       | ReservationEnded       | TokensDebited 5 late | TokensDebited 5 late             | ReservationReleased 0           | nothing
    late          | ReservationEnded       | TokensDebited 5 late | TokensDebited 5 late             | ReservationReleased 0           | nothing
    settled       | ReservationEnded       | ReservationEnded     | ReservationEnded                 | ReservationEnded                | nothing
    released      | ReservationEnded       | ReservationEnded     | ReservationEnded                 | ReservationEnded                | nothing
    settled late  | ReservationEnded       | ReservationEnded     | ReservationEnded                 | ReservationEnded                | nothing
    released late | ReservationEnded       | ReservationEnded     | ReservationEnded                 | ReservationEnded                | nothing
    closed        | AccountClosed          | AccountClosed        | AccountClosed                    | AccountClosed                   | nothing
"""  # noqa: E501 - a table


def transitions() -> list[tuple[str, str, str]]:
    """State, command, and what it comes to."""
    rows = [[cell.strip() for cell in row.split("|")] for row in TRANSITIONS.strip().splitlines()]
    head = rows[0]
    return [(row[0], command, cell) for row in rows[1:] for command, cell in zip(head[1:], row[1:], strict=True)]


@pytest.mark.parametrize(("state", "command", "outcome"), transitions())
def test_transition(world: World, state: str, command: str, outcome: str) -> None:
    read(world, STATES[state])
    before = world.app.log.head()
    came = Story(world).line(command) if command != "sweep" or outcome != "nothing" else _nothing(world)
    assert re.sub(r" from( \S+:\d+)+", "", came).rstrip("!") == outcome
    assert (world.app.log.head() == before) == (outcome in errors.catalogue() or outcome == "nothing")
    audit(world.app, catalogue_page())


def _nothing(world: World) -> str:
    before = world.app.log.head()
    Story(world)._sweep()
    return "nothing" if world.app.log.head() == before else "something"


def test_every_state_is_in_the_table() -> None:
    assert [state for state, command, _ in transitions() if command == "sweep"] == list(STATES)


# --- precedence of refusals ------------------------------------------------------------------------------
# For each command a good one, and how to get each of its refusals. Two that set the same field cannot meet.
NOBODY, CLOSED, SUSPENDED = {"account": "nobody"}, {"account": "closed"}, {"account": "suspended"}
USED = {"request_id": "used"}
ON_AN_ACCOUNT = {"UnknownAccount": NOBODY, "IdempotencyConflict": USED, "AccountClosed": CLOSED}
ON_A_MODEL = {"UnknownModel": {"model": "no-such"}, "NoRateInForce": {"model": "unpriced"}}
ON_A_HOLD = {"UnknownReservation": {"reservation": "no-such"}, "ReservationEnded": {"reservation": "ended"}}
BIG = 10**15
GOOD: dict[str, dict[str, Any]] = {
    "open_account": {"account": "new"},
    "grant": {"amount": 1, "source": "purchase"},
    "void_grant": {"grant": "g"},
    "reserve": {"amount": 1, **KIMI},
    "extend": {"reservation": "held", "amount": 1},
    "settle": {"reservation": "held", "usage": {"input": 1}},
    "release": {"reservation": "held"},
    "debit": {"usage": {"input": 1}, **KIMI},
    "reverse": {"debit": "debited"},
    "set_credit_limit": {"credit_limit": 0},
    "suspend": {},
    "resume": {},
    "close_account": {},
}
REFUSALS: dict[str, dict[str, dict[str, Any]]] = {
    "open_account": {
        "MalformedCommand": {"credit_limit": -1},
        "UnknownOperator": {"operator": "nobody"},
        "IdempotencyConflict": {"account": "open", "request_id": "used"},
        "AccountExists": {"account": "open"},
    },
    "grant": {"MalformedCommand": {"source": "theft"}, **ON_AN_ACCOUNT, "LimitExceeded": {"amount": 9 * BIG}},
    "void_grant": {"MalformedCommand": {"reason": 5}, **ON_AN_ACCOUNT, "UnknownGrant": {"grant": "no-such"}},
    "reserve": {
        "MalformedCommand": {"ttl_s": 0},
        **ON_AN_ACCOUNT,
        "AccountSuspended": SUSPENDED,
        **ON_A_MODEL,
        "InsufficientQuota": {"amount": BIG},
        "LimitExceeded": {"HOLDS_MAX": 0},
    },
    "extend": {
        "MalformedCommand": {"ttl_s": 0},
        **ON_AN_ACCOUNT,
        "AccountSuspended": SUSPENDED,
        **ON_A_HOLD,
        "InsufficientQuota": {"amount": BIG},
    },
    "settle": {"MalformedCommand": {"usage": {"input": -1}}, **ON_AN_ACCOUNT, **ON_A_HOLD},
    "release": {"MalformedCommand": {"reason": 5}, **ON_AN_ACCOUNT, **ON_A_HOLD},
    "debit": {
        "MalformedCommand": {"on_insufficient": "ask"},
        **ON_AN_ACCOUNT,
        "AccountSuspended": SUSPENDED,
        **ON_A_MODEL,
        "InsufficientQuota": {"usage": {"input": 10**9}},
    },
    "reverse": {
        "MalformedCommand": {"reason": 5},
        **ON_AN_ACCOUNT,
        "UnknownDebit": {"debit": "no-such"},
        "ReversalExceedsDebit": {"amount": BIG},
    },
    "set_credit_limit": {"MalformedCommand": {"credit_limit": -1}, **ON_AN_ACCOUNT},
    "suspend": {"MalformedCommand": {"reason": 5}, **ON_AN_ACCOUNT},
    "resume": {"MalformedCommand": {"colour": 1}, **ON_AN_ACCOUNT},
    "close_account": {"MalformedCommand": {"colour": 1}, **ON_AN_ACCOUNT},
}
ORDER = [error.__name__ for error in errors.PRECEDENCE]
# An account that does not exist has used no request; an operator that does not exist has no accounts.
NEVER_MEET = {frozenset(["UnknownAccount", "IdempotencyConflict"])} | {
    frozenset(["UnknownOperator", other]) for other in ("IdempotencyConflict", "AccountExists")
}


def meeting() -> list[tuple[str, str, str, dict[str, Any]]]:
    """Command, the refusal that must be told, the one it hides, and the command's fields: each that is refused for
    two reasons at once."""
    cases = []
    for command, refusals in REFUSALS.items():
        for (one, how), (other, too) in itertools.combinations(refusals.items(), 2):
            clash = any(how[field] != too[field] for field in how.keys() & too.keys())
            if not clash and frozenset([one, other]) not in NEVER_MEET:
                first, second = sorted((one, other), key=ORDER.index)
                cases.append((command, first, second, {**GOOD[command], **how, **too}))
    return cases


def accounts(world: World) -> None:
    for account in ("open", "closed", "suspended"):
        world.open(account)
        world.do("grant", account, request_id="g", amount=1_000_000, source="purchase")
        world.do("set_credit_limit", account, request_id="used", credit_limit=5)
        for name in ("held", "ended"):
            world.do("reserve", account, request_id=name, amount=1000, **KIMI)
        world.do("release", account, reservation="ended")
        world.do("debit", account, request_id="debited", usage={"input": 1}, **KIMI)
    world.do("close_account", "closed")
    world.do("suspend", "suspended")


def refusal_of(world: World, monkeypatch: pytest.MonkeyPatch, command: str, fields: dict[str, Any]) -> str:
    fields = dict(fields)
    if "HOLDS_MAX" in fields:
        monkeypatch.setattr(calls, "HOLDS_MAX", fields.pop("HOLDS_MAX"))
    return world.refusal(command, fields.pop("account", "open"), **fields)


def test_each_refusal_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(world)
    for command, refusals in REFUSALS.items():
        for code, how in refusals.items():
            with monkeypatch.context() as patch:
                assert (command, refusal_of(world, patch, command, {**GOOD[command], **how})) == (command, code)


def test_of_two_reasons_the_earlier_in_the_published_order_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts(world)
    for command, first, second, fields in meeting():
        with monkeypatch.context() as patch:
            told = refusal_of(world, patch, command, fields)
        assert (command, told) == (command, first), f"{second} is told before {first}: {fields}"


def test_more_than_can_be_counted_is_first_of_all_more_than_there_is(world: World) -> None:
    accounts(world)
    assert world.refusal("extend", "open", reservation="held", amount=9 * BIG) == "InsufficientQuota"


def test_every_refusal_of_the_published_order_is_in_the_table() -> None:
    in_table = {code for refusals in REFUSALS.values() for code in refusals}
    assert in_table == set(ORDER) - {"NotAuthorised"}, "who may act for an operator is judged before quota is asked"
    assert set(GOOD) == set(REFUSALS)
