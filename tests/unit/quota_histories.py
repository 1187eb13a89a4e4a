"""Random histories of accounts for tests: the simulation's clients against a real application, clocks and sweeps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from services.quota.application import QuotaApplication
from services.quota.domain.account import Account
from services.quota.domain.snapshot import freeze, thaw
from services.quota.schemas import Sweep
from tests.simulation import clients
from tests.unit.quota_world import World

NAMES = ("a", "b", "c")
# How far back clients date their commands, seconds.
LITTLE, MUCH = (5, 60), (1, 10, 60, 600, 86_400, 34 * 86_400)


def begin(world: World) -> None:
    """Accounts with something to begin with, made long before anything else happens."""
    for name in ("a", "b"):
        world.open(name, points=5_000_000, credit_limit=500_000)
    world.clock.advance(36 * 86_400)


def live(
    world: World, dice: Random, count: int, backdates: tuple[int, ...], after: Callable[[], None] = lambda: None
) -> None:
    """So many commands of clients; what is due is swept now and then, mostly late."""
    asked: list[dict[str, Any]] = []
    start = dice.randrange(10**9)  # names of its own
    for number in range(count):
        if dice.random() < 0.3:
            world.clock.advance(dice.choice([1, 5, 30, 400, 90_000]))
        if dice.random() < 0.1:
            follow(world)
            world.app.sweep(Sweep(limit=dice.choice([1, 3, 500])))
        fields = clients.command(dice, asked, world.clock())
        asked.append(fields)
        if fields["request_id"] == f"x{number}":
            fields["request_id"] = f"x{start + number}"
        at = None
        if backdates and dice.random() < 0.5:
            at = (world.clock() - timedelta(seconds=dice.choice(backdates))).isoformat()
        fields["occurred_at"] = at
        world.app.execute([{name: value for name, value in fields.items() if value is not None}])
        after()


def follow(world: World) -> None:
    """The read model catches up."""
    while page := world.app.log.read(world.app.projector.position(), 5000):
        world.app.follow_quota([e._asdict() for e in page])


def folded(world: World, stream: str, until: int | None = None) -> Account:
    """The account from its events, up to a version, and from nothing else."""
    account = Account()
    for logged in world.app.log.whole_stream(stream):
        if until is not None and logged.version > until:
            break
        account.evolve(logged.version, logged.event)
    return account


def whole_state(thing: Any) -> Any:
    """All that an account in memory consists of, in its order, derived or not: of equal states it is equal."""
    if hasattr(type(thing), "__slots__") and not isinstance(thing, msgspec.Struct):
        return {name: whole_state(getattr(thing, name)) for name in type(thing).__slots__}
    if isinstance(thing, dict):
        return [(key, whole_state(value)) for key, value in thing.items()]
    return [whole_state(one) for one in thing] if isinstance(thing, list | tuple) else thing


def check_snapshots(app: QuotaApplication, stream: str) -> None:
    """Invariant 7: state folded from events = snapshot and the events behind it = state in memory, byte for byte."""
    account = Account()
    for logged in app.log.whole_stream(stream):
        account.evolve(logged.version, logged.event)
    in_memory = app.writer.ask(lambda: app.accounts.account(stream))
    for other, what in ((app.snapshots.load(stream).account, "snapshot and tail"), (in_memory, "memory")):
        assert whole_state(other) == whole_state(account), f"{what} of {stream}"
        assert freeze(other) == freeze(account)
    if account.status is not None:
        assert whole_state(thaw(freeze(account))) == whole_state(account), f"frozen and thawed {stream}"
