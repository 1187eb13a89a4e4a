"""Whatever fails, the ledger keeps its word: lives under faults, and planted bugs that the lives must find."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from services.quota.application import Accounts
from services.quota.domain.account import Account, Grant
from shared.contracts import quota as q
from shared.errors import PRECEDENCE
from shared.eventstore import log as log_module
from shared.eventstore import writer as writer_module
from shared.eventstore.batch import Batch
from shared.eventstore.log import EventLog
from shared.eventstore.projection import Projector
from shared.eventstore.recorders import SQLiteLogRecorder
from shared.eventstore.writer import Writer
from tests.simulation.faults import POINTS
from tests.simulation.world import run

LIVES = int(os.environ.get("TOKENGRID_SOAK_SEEDS", "80"))
VARIETY_LIVES = 40
CANARY_LIVES = 80  # each planted bug must be found within so many


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away comes back, or not, without anybody waiting for it; and the writer, who has met a
    replay, hopes again at once: here everything is repeated all the time."""
    monkeypatch.setattr(log_module, "APPEND_BACKOFF_S", 0)
    monkeypatch.setattr(writer_module, "WARY_BATCHES", 1)


@pytest.mark.parametrize("number", range(LIVES))
def test_a_life_under_faults(seed: int, number: int) -> None:
    run(seed + number)


def test_one_seed_is_one_life(seed: int) -> None:
    first, again = run(seed), run(seed)
    assert first.steps == again.steps
    assert [s[:6] for s in first.judge.log] == [s[:6] for s in again.judge.log]


def test_lives_are_as_various_as_they_must_be() -> None:
    """Every fault at every place, every event and every refusal that a client can meet: else the rest proves little."""
    faults = {(point, kind) for point, kinds in POINTS.items() for kind in kinds}
    events = {event.__name__ for event in EVENTS}
    # Callers are authorised elsewhere, and there is one operator here.
    refusals = {error.__name__ for error in PRECEDENCE} - {"NotAuthorised", "UnknownOperator"}
    missing = {*faults, *events, *refusals}
    for number in range(VARIETY_LIVES):
        world = run(number)
        fired = {(fault.point, fault.kind) for fault in world.fired}
        kinds = {stored.kind for stored in world.judge.log}
        assert fired <= faults
        assert kinds <= events
        missing -= {*fired, *kinds, *world.refused}
        if not missing:
            return
    assert not missing


EVENTS = (
    q.AccountOpened,
    q.PointsGranted,
    q.GrantVoided,
    q.GrantExpired,
    q.PointsReserved,
    q.ReservationExtended,
    q.ReservationReleased,
    q.ReservationExpired,
    q.TokensDebited,
    q.DebitReversed,
    q.CreditLimitSet,
    q.AccountSuspended,
    q.AccountResumed,
    q.AccountClosed,
)


# --- canaries: bugs as they are really made ----------------------------------------------------------
def keys_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    insert = SQLiteLogRecorder._insert_rows
    keyless = lambda rows: [(*row[:5], None, row[6]) for row in rows]  # noqa: E731
    patch.setattr(SQLiteLogRecorder, "_insert_rows", lambda self, c, rows: insert(self, c, keyless(rows)))


def a_failed_append_is_taken_for_stored(patch: pytest.MonkeyPatch) -> None:
    """So that clients are answered before anything is durable."""
    patch.setattr(EventLog, "_is_stored", lambda *_: True)


def holds_are_freed_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Account, "_end", lambda *_: None)


def what_was_not_stored_stays_in_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Accounts, "forget", lambda *_: None)


def what_others_wrote_is_not_folded(patch: pytest.MonkeyPatch) -> None:
    def blind(writer: Writer[Any]) -> bool:
        writer.position = writer._decided = writer.log.head()
        return False

    patch.setattr(Writer, "_catch_up", blind)


def what_was_decided_on_a_failure_is_kept(patch: pytest.MonkeyPatch) -> None:
    """The second batch does not hear that the first, on which it was decided, was not stored."""
    doubt = Writer._doubt

    def unheard(writer: Writer[Any], batch: Any) -> None:
        doubt(writer, batch)
        writer._generation -= 1

    patch.setattr(Writer, "_doubt", unheard)


def a_refusal_is_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    """A repeated request is refused, though it was answered before."""
    patch.setattr(Batch, "refused", [])


def a_refusal_is_judged_by_old_memory(patch: pytest.MonkeyPatch) -> None:
    """What other processes stored is only noticed when something is to be stored."""
    holds_good = Writer._holds_good

    def hasty(writer: Writer[Any], batch: Any) -> bool:
        holds_good(writer, batch)
        return True

    patch.setattr(Writer, "_holds_good", hasty)


def expired_grants_are_drawn_from(patch: pytest.MonkeyPatch) -> None:
    pays_for = Grant.pays_for
    patch.setattr(
        Grant, "pays_for", lambda self, model, family, _at: pays_for(self, model, family, self.event.effective_at)
    )


def the_follower_forgets_where_it_was(patch: pytest.MonkeyPatch) -> None:
    """A page delivered twice is applied twice."""
    apply = Projector.apply

    def again(self: Projector, page: Any) -> int:
        if self.projection.name == "balances":
            with self.engine.begin() as connection:
                self.projection.apply(connection, [log_module.LoggedEvent(**e) for e in page][:1])
        return apply(self, page)

    patch.setattr(Projector, "apply", again)


CANARIES: list[Callable[[pytest.MonkeyPatch], None]] = [
    keys_are_not_stored,
    a_failed_append_is_taken_for_stored,
    holds_are_freed_twice,
    what_was_not_stored_stays_in_memory,
    what_others_wrote_is_not_folded,
    what_was_decided_on_a_failure_is_kept,
    a_refusal_is_not_looked_up,
    a_refusal_is_judged_by_old_memory,
    expired_grants_are_drawn_from,
    the_follower_forgets_where_it_was,
]


@pytest.mark.parametrize("bug", CANARIES, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(seed: int, bug: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        for number in range(CANARY_LIVES):
            try:
                run(seed + number)
            except AssertionError as found:
                assert "again: TOKENGRID_TEST_SEED=" in str(found)  # noqa: PT017 - it says how to see it again
                return
    pytest.fail(f"{CANARY_LIVES} lives did not show it")
