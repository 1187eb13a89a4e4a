"""Accounts that live long: what is over must not fill memory, block what is alive, or slow a question down."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.quota.domain import account as account_module
from services.quota.domain import calls, wallet
from services.quota.schemas import Balance, Statement, Sweep
from shared.errors import UnknownAccount
from shared.eventstore import log as log_module
from shared.eventstore.log import EventLog
from tests.auditing import audit
from tests.unit.quota_world import OPERATOR, START, World, books, catalogue_page


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def follow(world: World) -> None:
    world.app.follow_quota([e._asdict() for e in world.app.log.read(world.app.projector.position(), 5000)])


def sweep(world: World, **fields: object) -> dict[str, object]:
    follow(world)
    return world.app.sweep(Sweep(**fields))  # type: ignore[arg-type]


# --- the sweep -------------------------------------------------------------------------------------
def test_an_expiry_given_in_another_zone_is_due_at_its_instant(world: World) -> None:
    world.open()
    world.do("grant", request_id="g", amount=5, source="purchase", expires_at="2026-06-01T09:00:00+08:00")
    world.clock.advance(3599)
    assert sweep(world)["expired_grants"] == 0
    world.clock.advance(1)
    assert sweep(world)["expired_grants"] == 1


def test_what_was_due_before_commands_may_be_dated_is_swept_all_the_same(world: World) -> None:
    world.open(points=5)
    world.do("grant", request_id="g", amount=5, source="purchase", expires_at="2026-06-02T00:00:00Z")
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=10, ttl_s=60)
    world.clock.advance(world.settings.backdate_max_s + 10 * 86_400)
    assert sweep(world)["expired_reservations"] == 1
    assert sweep(world)["expired_grants"] == 1
    assert world.balance()["available"] == 5


def test_what_came_back_to_a_voided_grant_is_swept_though_it_never_expires(world: World) -> None:
    world.open(points=1_000_000)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=400_000)
    world.do("void_grant", grant="g-a1")
    assert sweep(world)["expired_grants"] == 0
    world.do("release", reservation="h")
    assert sweep(world)["expired_grants"] == 1
    assert sweep(world)["expired_grants"] == 0
    book = world.grant_books()["g-a1"]
    assert (book["available"], book["voided"]) == (0, 1_000_000)


def test_grants_that_are_used_up_are_not_looked_at_again(world: World) -> None:
    world.open()
    for n in range(3):
        world.do("grant", request_id=f"g{n}", amount=1000, source="purchase", expires_at="2026-06-01T00:01:00Z")
    world.do("debit", model="kimi-k2.5", usage={"input": 2})
    follow(world)
    with world.app.engine.connect() as connection:
        due = connection.execute(sa.text("SELECT name FROM grants WHERE due_at IS NOT NULL")).scalars().all()
    assert due == ["g2"]


def test_a_sweep_cannot_run_ahead_of_the_clock(world: World) -> None:
    world.open(points=1_000_000)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=10, ttl_s=3600)
    assert sweep(world, until=START + timedelta(days=1))["expired_reservations"] == 0


def test_a_sweep_that_cannot_do_anything_does_not_ask_for_another(world: World) -> None:
    world.open(points=1_000_000)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=10, ttl_s=1)
    world.clock.advance(2)
    assert sweep(world, limit=1) == {"expired_reservations": 1, "expired_grants": 0, "remaining": True}
    behind = world.app.sweep(Sweep(limit=1))  # the read model has not followed yet
    assert behind == {"expired_reservations": 0, "expired_grants": 0, "remaining": False}


# --- bounds that count what is alive ---------------------------------------------------------------
def test_expired_reservations_do_not_use_up_the_bound_on_live_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "HOLDS_MAX", 3)
    world.open(points=1_000_000)
    for n in range(8):
        world.do("reserve", request_id=f"h{n}", model="kimi-k2.5", amount=10, ttl_s=1)
        world.clock.advance(2)
        assert sweep(world)["expired_reservations"] == 1
    for n in range(3):
        world.do("reserve", request_id=f"live{n}", model="kimi-k2.5", amount=10)
    assert world.refusal("reserve", model="kimi-k2.5", amount=10) == "LimitExceeded"


def test_the_oldest_expired_reservations_are_forgotten_and_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_module, "LAPSED_MAX", 2)
    world.open(points=1_000_000)
    for n in range(3):
        world.do("reserve", request_id=f"h{n}", model="kimi-k2.5", amount=10, ttl_s=1)
        world.clock.advance(2)
        sweep(world)
    usage = {"input": 1}
    assert world.refusal("settle", reservation="h0", usage=usage) == "ReservationEnded"
    assert world.do("settle", reservation="h1", usage=usage)["late"] is True
    world.restart()
    assert world.refusal("settle", reservation="h0", usage=usage) == "ReservationEnded"
    assert world.do("settle", reservation="h2", usage=usage)["late"] is True


def test_grants_that_are_used_up_do_not_use_up_the_bound_on_grants(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wallet, "GRANTS_MAX", 2)
    world.open()
    for n in range(5):
        world.do("grant", request_id=f"g{n}", amount=1000, source="purchase")
        world.do("debit", request_id=f"d{n}", model="kimi-k2.5", usage={"input": 1})
    world.do("grant", amount=1000, source="purchase")
    world.do("grant", amount=1000, source="purchase")
    assert world.refusal("grant", amount=1000, source="purchase") == "LimitExceeded"
    assert len(world.balance()["grants"]) == 7


def test_what_is_given_back_to_a_grant_that_was_used_up_can_be_spent_again(world: World) -> None:
    world.open()
    world.do("grant", request_id="old", amount=1000, source="purchase", priority=1)
    world.do("grant", request_id="new", amount=1000, source="purchase", priority=2)
    world.do("debit", request_id="d", model="kimi-k2.5", usage={"input": 1})
    world.do("reverse", debit="d", amount=400)
    world.do("reverse", debit="d", amount=600)
    assert world.do("debit", model="kimi-k2.5", usage={"input": 2})["draws"] == [["old", 1000], ["new", 1000]]
    audit(world.app, catalogue_page())


# --- questions about long streams --------------------------------------------------------------------
def test_a_statement_reads_no_more_than_it_shows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=1_000_000)
    for _ in range(10):
        world.do("debit", model="kimi-k2.5", usage={"input": 1})
    read: list[int] = []
    stream = EventLog.stream

    def counted(log: EventLog, *args: object) -> object:
        found = stream(log, *args)  # type: ignore[arg-type]
        read.append(len(found))
        return found

    monkeypatch.setattr(EventLog, "stream", counted)
    page = world.app.statement(Statement(operator=OPERATOR, account="a1", after=2, limit=3))
    assert [event["version"] for event in page["events"]] == [3, 4, 5]
    assert page["more"] is True
    assert read == [4]


def test_a_statement_of_an_unknown_account_is_refused_wherever_it_begins(world: World) -> None:
    world.open()
    assert world.app.statement(Statement(operator=OPERATOR, account="a1", after=9))["events"] == []
    with pytest.raises(UnknownAccount):
        world.app.statement(Statement(operator=OPERATOR, account="nobody", after=9))


def test_an_account_is_folded_in_sections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "STREAM_PAGE", 3)
    world.open(points=1_000_000)
    for n in range(7):  # nine events: three whole sections
        world.do("debit", request_id=f"d{n}", model="kimi-k2.5", usage={"input": 1})
    before = books(world.app.accounts.account(f"{OPERATOR}/a1"))
    world.restart()
    assert books(world.app.accounts.account(f"{OPERATOR}/a1")) == before


def test_a_balance_does_not_fold_the_account_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=1_000_000)

    def refused(*_: object) -> object:
        raise AssertionError("the stream was read")

    monkeypatch.setattr(EventLog, "stream", refused)
    assert world.balance()["available"] == 1_000_000


def test_a_balance_sees_what_another_writer_appended(world: World) -> None:
    world.open(points=1_000_000)
    other = world.start()
    assert other.balance(Balance(operator=OPERATOR, account="a1"))["available"] == 1_000_000
    world.do("debit", model="kimi-k2.5", usage={"input": 100})
    assert other.balance(Balance(operator=OPERATOR, account="a1"))["available"] == 900_000


def test_accounts_that_are_only_asked_about_are_bounded_too(world: World) -> None:
    world.settings.accounts_cached_max = 3
    for n in range(8):
        world.open(f"b{n}")
    for n in range(8):
        world.balance(f"b{n}")
    assert len(world.app.accounts.accounts) == 3


def test_what_was_known_at_an_instant_is_a_beginning_of_the_stream_whatever_the_clock_did(world: World) -> None:
    world.open(points=1_000_000)
    world.clock.advance(100)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=500_000)
    world.clock.advance(-60)  # set right
    world.do("extend", reservation="h", amount=1)
    assert world.balance(known_at=START + timedelta(seconds=50))["reserved"] == 0
    assert world.balance(known_at=START + timedelta(seconds=100))["reserved"] == 500_001
