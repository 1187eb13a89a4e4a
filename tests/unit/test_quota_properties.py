"""The ledger's seven invariants, after any sequence of commands, each by its name; and a bug that breaks each.

Hypothesis plays the clients of the simulation against the real application; the auditor judges. A sequence that
breaks an invariant is made as short as it can be before it is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.audit.replay.invariants import INVARIANTS
from services.quota.domain import calls
from services.quota.domain.account import Account
from services.quota.domain.burndown import draw
from services.quota.readmodel import BalanceProjection
from services.quota.schemas import Sweep
from shared.contracts.base import Rates
from shared.contracts.quota import CREDIT
from shared.eventstore.recorders import NewRow, SQLiteLogRecorder
from tests.auditing import Auditor, InProcess, audit
from tests.folders import brief_folder
from tests.simulation import clients
from tests.unit.quota_world import World, catalogue_page

SOAK = int(os.environ.get("TOKENGRID_SOAK_SEEDS", "0"))
EXAMPLES, STEPS = max(30, SOAK // 5), 30
# A canary is to be found, not looked for: one seed, with which each is within the first six examples. With others
# it can take more than two hundred.
CANARY_SEED, CANARY_EXAMPLES = 11, 200


class Commands(RuleBasedStateMachine):
    """Two accounts to begin with, then whatever clients may ask, in any order, alone or in batches, with repeats."""

    watched = frozenset(INVARIANTS)

    def __init__(self) -> None:
        super().__init__()
        self.folder = brief_folder()
        self.world = World(Path(self.folder.name))
        self.asked: list[dict[str, Any]] = []
        self.client = InProcess(self.world.app, catalogue_page())
        self.auditor = Auditor(self.client)
        for account in ("a", "b"):
            self.world.open(account, points=3_000_000, credit_limit=500_000)

    def teardown(self) -> None:
        try:
            if self.watched == set(INVARIANTS):
                audit(self.world.app, catalogue_page())
        finally:
            self.world.app.close()
            self.folder.cleanup()

    # -- what may happen ---------------------------------------------------------------------------
    @rule(name=st.sampled_from(sorted(clients.WEIGHTS)), dice=st.randoms(use_true_random=False))
    def one(self, name: str, dice: Random) -> None:
        self.execute([self.command(dice, name)])

    @rule(
        names=st.lists(st.sampled_from(["debit", "grant", "reserve", "reverse", "settle"]), min_size=2, max_size=5),
        dice=st.randoms(use_true_random=False),
    )
    def batch(self, names: list[str], dice: Random) -> None:
        self.execute([self.command(dice, name) for name in names])

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        self.execute([data.draw(st.sampled_from(self.asked))])

    @rule(seconds=st.sampled_from([1, 20, 60, 300]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.client.follow()
        self.world.app.sweep(Sweep())

    def command(self, dice: Random, name: str) -> dict[str, Any]:
        fields = clients.command(dice, self.asked, self.world.clock(), name)
        self.asked.append({field: value for field, value in fields.items() if value is not None})
        return self.asked[-1]

    def execute(self, commands: list[dict[str, Any]]) -> None:
        self.world.app.execute(commands)
        self.auditor.read_on()

    # -- what must be true -------------------------------------------------------------------------
    def holds_true(self, name: str) -> None:
        broken = self.auditor.broken(name) if name in self.watched else []
        assert not broken, f"{name} ({INVARIANTS[name]}): {broken}"

    @invariant()
    def grants(self) -> None:
        self.holds_true("grants")

    @invariant()
    def overdrawn(self) -> None:
        self.holds_true("overdrawn")

    @invariant()
    def holds(self) -> None:
        self.holds_true("holds")

    @invariant()
    def requests(self) -> None:
        self.holds_true("requests")

    @invariant()
    def prices(self) -> None:
        self.holds_true("prices")

    @invariant()
    def order(self) -> None:
        self.holds_true("order")

    @invariant()
    def one_state(self) -> None:
        if "one state" in self.watched:
            self.auditor.read_on()
            self.auditor.check_memory(self.world.app.accounts.accounts.items())
            self.auditor.check_read_model()
        self.holds_true("one state")


def play(seed: int, watched: frozenset[str] = Commands.watched, **chosen: Any) -> None:
    """Let Hypothesis try; what it finds is raised."""
    machine = hypothesis.seed(seed)(type("Commands", (Commands,), {"watched": watched}))
    given = {"max_examples": EXAMPLES, "stateful_step_count": STEPS, "database": None, **chosen}
    run_state_machine_as_test(machine, settings=settings(settings.get_profile("tokengrid"), **given))


@pytest.mark.timeout(3600 if SOAK else 120)
def test_the_seven_invariants_hold_after_any_commands(seed: int) -> None:
    play(seed)


def test_every_invariant_is_checked_by_name() -> None:
    checked = {name.replace("_", " ") for name in vars(Commands)}
    assert set(INVARIANTS) <= checked


# --- canaries: for each invariant a bug that breaks it ----------------------------------------------
def _reserved_points_are_not_set_aside(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Account, "_reserve", lambda *_: None)


def _what_credit_covers_is_owed(patch: pytest.MonkeyPatch) -> None:
    def without_credit(account: Account, *args: Any) -> Any:
        draws, owed = draw(account, *args)
        if not owed:
            return draws, owed
        return tuple(d for d in draws if d.grant != CREDIT), owed + sum(d.amount for d in draws if d.grant == CREDIT)

    patch.setattr(calls, "draw", without_credit)


def _a_hold_never_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Account, "_end", lambda *_: None)


def _keys_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    pack = SQLiteLogRecorder.pack

    def keyless(recorder: SQLiteLogRecorder, first: int, rows: Sequence[NewRow]) -> Any:
        return pack(recorder, first, [(*row[:4], None, row[5]) for row in rows])

    patch.setattr(SQLiteLogRecorder, "pack", keyless)


def _a_price_is_off_by_one(patch: pytest.MonkeyPatch) -> None:
    price = Rates.price
    patch.setattr(Rates, "price", lambda rates, usage: price(rates, usage) + (usage.output > 0))


def _versions_are_counted_in_twos(patch: pytest.MonkeyPatch) -> None:
    evolve = Account.evolve
    evened = lambda account, version, event: evolve(account, version + version % 2, event)  # noqa: E731
    patch.setattr(Account, "evolve", evened)


def _the_read_model_forgets_what_is_freed(patch: pytest.MonkeyPatch) -> None:
    apply = BalanceProjection.apply

    def forgetful(self: BalanceProjection, connection: Any, page: Any) -> Any:
        return apply(self, connection, [logged for logged in page if "Released" not in logged.topic])

    patch.setattr(BalanceProjection, "apply", forgetful)


CANARIES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "grants": _reserved_points_are_not_set_aside,
    "overdrawn": _what_credit_covers_is_owed,
    "holds": _a_hold_never_ends,
    "requests": _keys_are_not_stored,
    "prices": _a_price_is_off_by_one,
    "order": _versions_are_counted_in_twos,
    "one state": _the_read_model_forgets_what_is_freed,
}


@pytest.mark.parametrize("name", CANARIES)
def test_a_bug_that_breaks_an_invariant_is_found_by_its_name(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        CANARIES[name](patch)
        with pytest.raises(AssertionError, match=f"^{name} "):
            play(CANARY_SEED, frozenset([name]), max_examples=CANARY_EXAMPLES, phases=[Phase.generate])


@pytest.mark.skipif(not SOAK, reason="makes a sequence short for as long as that goes on: in `make soak`")
@pytest.mark.timeout(600)
def test_what_breaks_an_invariant_is_shown_as_short_as_it_can_be(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _a_price_is_off_by_one(patch)
        with pytest.raises(AssertionError, match=r"^prices ") as found:
            play(seed, frozenset(["prices"]), max_examples=CANARY_EXAMPLES, phases=[Phase.generate, Phase.shrink])
    steps = re.findall(r"^state\.(\w+)\(.+\)$", str(found.value) + "\n".join(found.value.__notes__), re.M)
    assert len(steps) == 1, "one command shows it"
