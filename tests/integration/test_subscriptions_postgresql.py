"""Subscriptions on PostgreSQL: what comes of them is what comes of them on SQLite, by one process or two."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from shared.contracts import subscriptions as s
from shared.errors import AlreadySubscribed, SubscriptionNotActive, TrialUsed
from tests.unit.subscription_world import World

pytestmark = pytest.mark.servers

PLANS = ("small", "large", "yearly", "rolling", "welcome", "reduced", "taste", "home")
ACCOUNTS = ("a", "B", "b-1", "c")


def season(world: World, seed: int) -> list[str]:
    """Six months of four accounts; every event of their subscriptions that is no clock's."""
    rng = Random(seed)
    for account in ACCOUNTS:
        world.open(account, subscriber=account.lower()[:1])
    other = world.another()
    taken: list[tuple[str, str]] = []
    for day in range(1, 180, 3):
        world.until(f"2026-{6 + day // 30:02d}-{1 + day % 30:02d} {day % 24:02d}:00", hours=72)
        account = rng.choice(ACCOUNTS)
        try:
            if rng.random() < 0.3 or not taken:
                taken.append((account, world.take(rng.choice(PLANS), account)))
            else:
                account, name = rng.choice(taken)
                asked = rng.choice(("change", "pause", "resume", "end"))
                more = {"plan": rng.choice(PLANS)} if asked == "change" else {}
                more |= {} if asked == "resume" else {"at_once": rng.random() < 0.5}
                world.ask(f"{asked}_subscription", account, subscription=name, **more)
        except (AlreadySubscribed, SubscriptionNotActive, TrialUsed):
            pass
        world.use(rng.randrange(2_000), account)
        world.billing, other = other, world.billing
    other.close()
    return world.periods() + [
        f"{type(e).__name__} {e.subscription} {e.number} {e.unused}"
        for e in world.events()
        if isinstance(e, s.PlanPeriodCredited | s.PointsRolledOver)
    ]


def test_two_processes_on_postgresql_do_what_two_on_sqlite_do(
    tmp_path: Path, postgres_database: str, seed: int
) -> None:
    here, there = World(tmp_path / "here"), World(tmp_path / "there", database=postgres_database)
    try:
        found = season(there, seed)
        assert found == season(here, seed)
        assert len(found) > 15
    finally:
        here.close()
        there.close()
