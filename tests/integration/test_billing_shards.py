"""The followers of several shards of quota at once into one billing database: nothing is lost, doubled or stuck."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.billing import tables as t
from services.billing.application import BillingApplication
from services.billing.questions import Settlement
from shared.clock import FrozenClock
from shared.config import Settings
from shared.contracts.base import Usage
from shared.contracts.billing import BillIssued
from shared.errors import Conflict
from shared.sharding import shard_of
from tests.threads import at_once
from tests.unit.billing_world import JUNE, QuotaLog, catalogue, july, june

pytestmark = pytest.mark.servers

SHARDS = 4
OPERATORS = ("sh", "gd", "bj")
PAGE = 7


def logs(seed: int) -> list[QuotaLog]:
    """Each shard's log: accounts of all operators, whose calls were served everywhere; some of it came late."""
    rng, made = random.Random(seed), [QuotaLog() for _ in range(SHARDS)]
    wallets = [(operator, f"a{n}") for operator in OPERATORS for n in range(12)]

    def of(wallet: tuple[str, str]) -> QuotaLog:
        return made[shard_of(*wallet, SHARDS)]

    for operator, account in wallets:
        of((operator, account)).open(operator=operator, account=account)
    for n in range(600):
        wallet = rng.choice(wallets)
        recorded = july(1, 1) if n > 450 else None
        of(wallet).debit(
            june(rng.randrange(1, 31)), Usage(input=rng.randrange(1, 9000)), overdrawn=rng.randrange(1000),
            serving=rng.choice(OPERATORS), recorded=recorded, operator=wallet[0], account=wallet[1],
        )  # fmt: skip
    return made


def application(folder: Path, database: str) -> BillingApplication:
    settings = Settings(var=folder, database=database, quota_shards=SHARDS)
    app = BillingApplication(settings, FrozenClock(july(1, 2)))
    app.follow_catalog(catalogue().page())
    return app


def follow(app: BillingApplication, log: QuotaLog, shard: int) -> None:
    """To the end, as the follower does it: another's being faster is asked about and gone on from."""
    position = app.follow_quota([], shard)
    while position < log.head:
        try:
            position = app.follow_quota(log.page(position, position + PAGE), shard)
        except Conflict:
            position = app.follow_quota([], shard)


def close(app: BillingApplication, made: list[QuotaLog]) -> None:
    """June's bills and statements."""
    for operator in OPERATORS:
        for shard, log in enumerate(made):
            run = {"operator": operator, "period": JUNE, "quota_shard": shard, "quota_position": log.head}
            while app.submit("issue_bills", run)["remaining"]:
                pass
    app.submit("settle_period", {"period": JUNE, "quota_positions": [log.head for log in made]})


def books(app: BillingApplication) -> dict[str, list[Any]]:
    with app.engine.connect() as connection:
        tables = (t.accounts, t.usage, t.wholesale, t.periods)
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(*table.primary_key.columns, *table.c))), key=str)
            for table in tables
        }


def hashes(app: BillingApplication) -> list[str]:
    events = [e.event for e in app.log.read(0, 1000)]
    return [event.bill_sha256 for event in events if isinstance(event, BillIssued)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_followers_of_all_shards_at_once_make_the_books_of_one_after_the_other(
    tmp_path: Path, postgres_database: str, seed: int, replicas: int
) -> None:
    made = logs(seed)
    alone = application(tmp_path, f"sqlite:///{tmp_path}/alone.db")
    together = [application(tmp_path, postgres_database) for _ in range(replicas)]
    try:
        for shard, log in enumerate(made):
            follow(alone, log, shard)
        at_once([lambda a=app, lo=log, s=s: follow(a, lo, s) for app in together for s, log in enumerate(made)])
        assert books(together[0]) == books(alone)
        for app in (alone, together[0]):
            close(app, made)
        assert hashes(together[0]) == hashes(alone)
        assert len(hashes(alone)) == 36
        asked = Settlement(period=JUNE)
        assert together[0].settlement(asked) == alone.settlement(asked)
    finally:
        for app in (alone, *together):
            app.close()


def test_a_month_is_closed_for_one_shard_while_the_others_are_still_followed(
    tmp_path: Path, postgres_database: str, seed: int
) -> None:
    made = logs(seed)
    alone = application(tmp_path, f"sqlite:///{tmp_path}/alone.db")
    app = application(tmp_path, postgres_database)
    try:
        for shard, log in enumerate(made):
            follow(alone, log, shard)
        close(alone, made)
        follow(app, made[0], 0)

        def first_shard() -> None:
            for operator in OPERATORS:
                run = {
                    "operator": operator,
                    "period": JUNE,
                    "quota_shard": 0,
                    "quota_position": made[0].head,
                    "limit": 1,
                }
                while app.submit("issue_bills", run)["remaining"]:
                    pass

        at_once([first_shard, *(lambda s=s: follow(app, made[s], s) for s in range(1, SHARDS))])
        close(app, made)
        bills = {event.bill.account + event.bill.operator: event.bill for event in _issued(app)}
        expected = {event.bill.account + event.bill.operator: event.bill for event in _issued(alone)}
        assert {k: b.total_fen for k, b in bills.items()} == {k: b.total_fen for k, b in expected.items()}
        assert app.settlement(Settlement(period=JUNE)) == alone.settlement(Settlement(period=JUNE))
    finally:
        app.close()
        alone.close()


def _issued(app: BillingApplication) -> list[BillIssued]:
    return [e.event for e in app.log.read(0, 1000) if isinstance(e.event, BillIssued)]


def test_two_replicas_on_sqlite_follow_shards_side_by_side(tmp_path: Path, seed: int) -> None:
    made = logs(seed)
    url = f"sqlite:///{tmp_path}/billing.db"
    apps = [application(tmp_path, url) for _ in range(2)]
    try:
        at_once([lambda a=apps[s % 2], s=s: follow(a, made[s], s) for s in range(SHARDS)])
        assert apps[0].status()["followed"]["quota_shards"] == [log.head for log in made]
        with apps[0].engine.connect() as connection:
            assert connection.execute(sa.select(sa.func.sum(t.usage.c.calls))).scalar() == 600
    finally:
        for app in apps:
            app.close()
