"""Burn-down and the states of a reservation, as tables to be read.

All figures in the stories are points; a token of input costs one. A line is a command, and behind the arrow what it
must come to: what it says of itself, or its refusal; a line that begins with `=` is what the account then has.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared import errors
from tests.auditing import audit
from tests.unit.quota_stories import EVENTS, Story, read
from tests.unit.quota_world import World, catalogue_page


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
