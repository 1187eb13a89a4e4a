"""The auditor's own ledger: hand-made events in raw JSON, each rule broken once, found and located."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from services.audit.replay.account import Account
from services.audit.replay.calendar import instant
from services.audit.replay.findings import Difference, Findings
from services.audit.replay.invariants import INVARIANTS, invariant_of, standing
from services.audit.replay.ledger import Ledger
from tests.unit.ledger_world import (
    CARD,
    HELD,
    LATER,
    START,
    STREAM,
    Entry,
    debited,
    event,
    fold,
    found,
    granted,
    lifecycle,
    opened,
    prices,
    reserved,
)

REPLAY = Path(__file__).parents[2] / "services/audit/replay"


def test_an_honest_life_has_no_differences_and_the_books_it_must_have() -> None:
    ledger, findings = fold(*lifecycle())
    assert findings.differences == []
    state = ledger.accounts[STREAM].state()
    assert {k: state[k] for k in ("status", "version", "credit_limit", "overdrawn")} == {
        "status": "closed",
        "version": 21,
        "credit_limit": 0,
        "overdrawn": 0,
    }
    none = dict.fromkeys(("granted", "reserved", "debited", "reversed", "expired", "voided"), 0)
    assert state["grants"] == {
        "g1": none | {"granted": 3_000_000, "debited": 3_000_000},
        "g2": none | {"granted": 5_000_000, "debited": 5_000_000},
        "v2/0": none | {"granted": 500_000, "voided": 100_000},
        "credit": none | {"debited": 2_010_000, "reversed": 100_000},
    }
    assert ledger.debited == 500_000 + 2_600_000 + 8_000_000 + 10_000


def test_what_follows_from_a_request_uses_up_no_request_of_the_same_name() -> None:
    """A client may have named a debit as a reversal names its grants, a closing its releases, or the sweep its own."""
    entries = [
        opened(),
        granted("g1", 20_000, expires_at=LATER),
        granted("g2", 90_000),
        debited("v/0", 5, [["g1", 5000]]),
        debited("d", 5, [["g1", 5000]]),
        event("DebitReversed", "v", at=LATER, debit="d", model="m1", rate_card=CARD, amount=5000, draws=[["g1", 5000]],
              regranted=["g1"]),
        granted("v/0", 5000, source="adjustment", origin="g1", effective_at=LATER, at=LATER),
        event("DebitReversed", "w", at=LATER, debit="v/0", model="m1", rate_card=CARD, amount=5000,
              draws=[["g1", 5000]], regranted=["g1"]),
        granted("w/0", 5000, source="adjustment", origin="g1", effective_at=LATER, at=LATER),
        debited("w/0", 5, [["g2", 5000]]),
        event("GrantExpired", "expire/g1", at=LATER, grant="g1", amount=10_000),
        debited("expire/g1", 5, [["g2", 5000]]),
        reserved("close/0", [["g2", 5000]]),
        event("AccountClosed", "close"),
        event("ReservationReleased", "close/0", reservation="close/0", amount=5000, draws=[["g2", 5000]]),
    ]  # fmt: skip
    assert found(*entries) == []


BROKEN: dict[str, tuple[list[Entry], list[tuple[str, int]]]] = {
    "amount changed": (
        [*START, debited("d", 7, [["g1", 8000]], amount=8000)],
        [("amount is not usage times rates", 3)],
    ),
    "wrong rate": (
        [*START, debited("d", 7, [["g1", 14_000]], amount=14_000, rates={"input": 2000, "output": 4000})],
        [("rates are not those of the rate card", 3), ("amount is not usage times rates", 3)],
    ),
    "rate card of another model": (
        [*START, debited("d", 7, [["g1", 7000]], rate_card="east/m2@1")],
        [("rate card of another operator or model", 3)],
    ),
    "no such rate card": (
        [*START, debited("d", 7, [["g1", 7000]], rate_card="east/m1@9")],
        [("no such rate card", 3)],
    ),
    "draws do not add up": (
        [*START, debited("d", 7, [["g1", 6999]])],
        [("debit is not the sum of its draws and what was overdrawn", 3)],
    ),
    "debited twice": (
        [*START, debited("d", 7, [["g1", 7000]]), debited("d", 7, [["g1", 7000]])],
        [("request has two effects", 4)],
    ),
    "more than the grant had": (
        [opened(), granted(amount=6999), debited("d", 7, [["g1", 7000]])],
        [("grant is overdrawn", 3)],
    ),
    "owed while there was something left": (
        [*START, debited("d", 7, [], overdrawn=7000)],
        [("overdrawn though there was something to draw from", 3)],
    ),
    "more than the credit limit": (
        [opened(credit_limit=6999), debited("d", 7, [["credit", 7000]])],
        [("credit limit exceeded", 2)],
    ),
    "a grant of the credit's name": (
        [opened(credit_limit=6999), granted("credit"), debited("d", 7, [["credit", 7000]])],
        [("two grants of one name", 2), ("credit limit exceeded", 3)],
    ),
    "from an expired grant": (
        [opened(), granted(expires_at=LATER), debited("d", 7, [["g1", 7000]], at=LATER)],
        [("drawn from a grant that was not valid", 3)],
    ),
    "from a grant not yet effective": (
        [opened(), granted(effective_at=LATER), debited("d", 7, [["g1", 7000]])],
        [("drawn from a grant that was not valid", 3)],
    ),
    "from a voided grant": (
        [*START, event("GrantVoided", "v", grant="g1", amount=10_000_000), debited("d", 7, [["g1", 7000]])],
        [("drawn from a grant that was not valid", 4), ("grant is overdrawn", 4)],
    ),
    "from a grant for other models": (
        [opened(), granted(scope={"families": ["f2"]}), debited("d", 7, [["g1", 7000]])],
        [("drawn from a grant for other models", 3)],
    ),
    "from no grant": (
        [opened(), debited("d", 7, [["g1", 7000]])],
        [("no such grant", 2), ("grant is overdrawn", 2)],
    ),
    "hold is not its draws": (
        [*START, reserved("h1", [["g1", 5000]], amount=5001)],
        [("held amount is not the sum of its draws", 3)],
    ),
    "settled twice": (
        [
            *HELD,
            debited("s1", 5, [["g1", 5000]], reservation="h1", freed=[["g1", 5000]]),
            debited("s2", 5, [["g1", 5000]], reservation="h1"),
        ],
        [("reservation is not there or has ended", 5)],
    ),
    "settled at another price": (
        [*HELD, debited("s1", 5, [["g1", 5000]], reservation="h1", freed=[["g1", 5000]], rate_card="east/m2@1")],
        [("price is not the pinned one", 4)],
    ),
    "too little came back": (
        [*HELD, debited("s1", 3, [["g1", 3000]], reservation="h1", freed=[["g1", 4000]], released=1000)],
        [("freed is not what leaves the hold", 4)],
    ),
    "held is not settled plus released": (
        [*HELD, debited("s1", 3, [["g1", 3000]], reservation="h1", freed=[["g1", 5000]], released=1000)],
        [("held is not settled plus released", 4)],
    ),
    "released less than was held": (
        [*HELD, event("ReservationReleased", "x", reservation="h1", amount=4000, draws=[["g1", 4000]])],
        [("released is not what was held", 4)],
    ),
    "hold expired early": (
        [*HELD, event("ReservationExpired", "expire/h1", reservation="h1", amount=5000, draws=[["g1", 5000]])],
        [("reservation expired early or twice", 4)],
    ),
    "grant expired early": (
        [opened(), granted(expires_at=LATER), event("GrantExpired", "expire/g1", grant="g1", amount=10_000_000)],
        [("grant expired early", 3)],
    ),
    "breakage is not what was left": (
        [
            opened(),
            granted(expires_at=LATER),
            event("GrantExpired", "expire/g1", at=LATER, grant="g1", amount=9_999_999),
        ],
        [("ended grant had another rest", 3)],
    ),
    "reversed more than debited": (
        [
            *START,
            debited("d1", 7, [["g1", 7000]]),
            debited("d2", 7, [["g1", 7000]]),
            event("DebitReversed", "v", debit="d1", model="m1", rate_card=CARD, amount=7001, draws=[["g1", 7001]]),
        ],
        [("more is reversed than was debited", 5)],
    ),
    "reversed in parts beyond the whole": (
        [
            *START,
            debited("d1", 7, [["g1", 7000]]),
            debited("d2", 7, [["g1", 7000]]),
            event("DebitReversed", "v1", debit="d1", model="m1", rate_card=CARD, amount=4000, draws=[["g1", 4000]]),
            event("DebitReversed", "v2", debit="d1", model="m1", rate_card=CARD, amount=4000, draws=[["g1", 4000]]),
        ],
        [("more is reversed than was debited", 6)],
    ),
    "reversal of what was no debit": (
        [
            *START,
            debited("d1", 7, [["g1", 7000]]),
            event("DebitReversed", "v", debit="g1", model="m1", rate_card=CARD, amount=1, draws=[["g1", 1]]),
        ],
        [("reversal of no debit", 4)],
    ),
    "points from nothing": (
        [opened(), granted(source="adjustment", origin="g0")],
        [("granted back is not what was reversed", 2)],
    ),
    "reversed and kept": (
        [
            *START,
            debited("d1", 7, [["g1", 7000]]),
            event("DebitReversed", "v", debit="d1", model="m1", rate_card=CARD, amount=7000, draws=[["g1", 7000]],
                  regranted=["g1"]),
        ],
        [("reversed, but not granted back", 0)],
    ),
    "two grants of one name": ([*START, granted()], [("request has two effects", 3), ("two grants of one name", 3)]),
    "spent while suspended": (
        [*START, event("AccountSuspended", "stop"), reserved("h1", [["g1", 5000]])],
        [("account was suspended", 4)],
    ),
    "spent after closing": (
        [*START, event("AccountClosed", "close"), debited("d", 7, [["g1", 7000]])],
        [("account was closed", 4)],
    ),
    "never opened": ([granted()], [("event of an account that was not opened", 1)]),
    "unknown kind": ([*START, event("PointsConjured", "p")], [("unknown kind of event", 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found_where_it_is_broken(name: str) -> None:
    entries, expected = BROKEN[name]
    assert found(*entries) == expected


def test_every_amount_of_an_honest_life_is_held_to_something() -> None:
    """Change any one number of millipoints by one: something is found, except a lot's size and a limit, which say
    themselves what they are; of those the books tell."""
    entries = lifecycle()
    honest = fold(*entries)[0].accounts[STREAM].state()
    for index, (_, topic, fields) in enumerate(entries):
        for name in ("amount", "overdrawn", "released"):
            if name not in fields:
                continue
            changed = copy.deepcopy(entries)
            changed[index][2][name] += 1
            ledger, findings = fold(*changed)
            assert findings.count or ledger.accounts[STREAM].state() != honest, (index, topic, name)


def test_the_price_is_the_tiers_or_the_hours() -> None:
    card = prices().card("east/tiered@1")
    assert card is not None
    day, night = instant("2026-06-18T04:00:00Z"), instant("2026-06-17T23:59:00Z")  # 12:00 and 07:59 in Shanghai
    cases = [((100, 0, 0, 0), day, 10), ((50, 51, 0, 0), day, 20), ((0, 100, 101, 0), day, 30)]
    cases += [((100, 0, 0, 0), night, 5), ((101, 0, 0, 0), night, 20), ((1, 0, 0, 999), night, 5)]
    assert [card.rates(usage, at)[0] for usage, at, _ in cases] == [expected for _, _, expected in cases]


def test_a_part_of_a_call_is_of_the_tier_of_its_input_so_far() -> None:
    def part(name: str, tokens: int, rate: int) -> Entry:
        of_card = {"model": "tiered", "rate_card": "east/tiered@1", "rates": {"input": rate}}
        draws = [["g1", tokens * rate]]
        amount = {"amount": tokens * rate, "freed": draws}
        return debited(name, tokens, draws, reservation="h", final=False, **of_card, **amount)

    entries = [*START, reserved("h", [["g1", 5000]], model="tiered", rate_card="east/tiered@1")]
    assert found(*entries, part("one", 60, 10), part("two", 41, 20), part("three", 1, 20)) == []
    wrong = [("rates are not those of the rate card", 5), ("amount is not usage times rates", 5)]
    assert found(*entries, part("one", 60, 10), part("two", 41, 10)) == wrong


def test_a_price_that_was_superseded_long_ago_is_found_and_one_of_this_minute_is_not() -> None:
    known = prices()
    item = {"operator": "east", "model": "m1", "rates": {"input": 7}}
    start = "2026-06-18T03:00:00Z"
    for recorded, effective, outdated in (
        (start, start, True),
        ("2026-06-18T03:59:30Z", "2026-06-18T03:59:30Z", False),
        (start, LATER, False),
    ):
        known = prices()
        published = {"at": recorded, "recorded_at": recorded, "version": 2, "effective_from": effective, "item": item}
        known.apply(9, "rate_card:east/m1", "catalog.RateCardPublished:1", published)
        findings = Findings()
        ledger = Ledger(known, findings, lambda *_: None, lambda _: ("", {}))
        for position, (stream, topic, fields) in enumerate([*START, debited("d", 7, [["g1", 7000]])], start=1):
            ledger.apply(position, stream, topic, fields)
        assert [d.what for d in findings.differences] == ["rate card was not in force"] * outdated


# --- the seven invariants ------------------------------------------------------------------------------
def test_every_difference_in_the_ledger_breaks_an_invariant_with_a_name() -> None:
    told = set()
    for module in ("ledger", "requests", "reader", "invariants"):
        source = (REPLAY / f"{module}.py").read_text()
        told |= set(re.findall(r'(?:_broken|_add|Broken)\(\s*f?"([^"]+)"', source))
    assert len(told) > 40
    for what in told:
        said = what.replace("{a.status}", "closed")
        assert invariant_of(Difference("invariants", said, "quota", 1, STREAM, "", "")) in INVARIANTS


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda a: setattr(a.grants["g1"], "reserved", 1), "held is not what is reserved"),
        (lambda a: setattr(a.grants["g1"], "expired", -1), "books of a grant are negative"),
        (lambda a: setattr(a.grants["g1"], "reversed", 99_000_000), "books of a grant are negative"),
        (lambda a: setattr(a.credit, "debited", -1), "books of a grant are negative"),
        (lambda a: setattr(a, "overdrawn", -1), "less is owed than nothing"),
        (lambda a: setattr(a.holds["h1"], "expired", True), "expired reservation holds something"),
        (lambda a: a.holds["h1"].remaining.update(g9=5), "held is not what is reserved"),
    ],
)
def test_books_at_rest_are_held_to_the_invariants_too(spoil: Callable[[Account], object], what: str) -> None:
    account = fold(*HELD)[0].accounts[STREAM]
    assert list(standing(account)) == []
    spoil(account)
    assert what in [broken.what for broken in standing(account)]
