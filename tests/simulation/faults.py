"""A process of quota that can be made to fail at every place where a real one can.

The application, its writer, its decisions and its log are the real ones. Only where they touch the database,
fold an event or are about to answer, a fault may be waiting: the process dies there, or the one call is killed,
or the database fails, or another process is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import eventlet
from eventlet.greenthread import GreenThread
from eventsourcing.persistence import OperationalError

from services.quota.application import QuotaApplication
from shared.clock import FrozenClock
from shared.config import Settings


class Died(BaseException):
    """The process is gone, with all it had in memory."""


class Killed(BaseException):
    """The call is gone; the process lives on with what it has in memory."""


SWITCHES = 8  # more than a call needs to come to where it must wait

# What can happen where. `error`: the database fails once, `outage`: until the call has ended, `race`: another
# process works while this one is about to go on, `riders`: nothing, but that other callers come to this process.
POINTS: dict[str, tuple[str, ...]] = {
    "reading": ("died", "killed", "error", "outage", "race"),
    "folding": ("died", "killed"),
    "before the append": ("died", "killed", "error", "outage", "race", "riders"),
    "inside the append": ("died", "killed", "error", "outage", "riders"),
    "stored": ("died", "killed", "error", "outage", "race", "riders"),
    "committed": ("died", "killed", "riders"),
    "projecting": ("died", "killed"),
}


class Fault(NamedTuple):
    """What happens when a process passes `point` for the `nth` time; `met`: by then others are waiting there too,
    whose commands were decided on what this call has decided."""

    point: str
    kind: str
    nth: int
    met: bool = False


class Process:
    """One process of the service, on the database it shares with the others."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        clock: FrozenClock,
        race: Callable[[Process], None],
        meet: Callable[[Process], GreenThread],
    ) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.race = race
        self.meet = meet
        self.riders: list[GreenThread] = []
        self.busy = False
        self.fault: Fault | None = None
        self.fired: Fault | None = None
        self._outage = False
        self._passed = 0
        self._dead: list[QuotaApplication] = []  # never closed by themselves: a process that dies closes nothing
        self.app = self._start()

    @property
    def now(self) -> datetime:
        return self.clock()

    def restart(self) -> None:
        self._dead.append(self.app)
        self.app = self._start()

    def arm(self, fault: Fault | None) -> None:
        self.fault, self.fired, self._outage, self._passed = fault, None, False, 0

    def close(self) -> None:
        """The machine is switched off."""
        for app in (*self._dead, self.app):
            app.close()

    def wait_for_riders(self) -> None:
        """Raises what went wrong with one of them."""
        wrong = [error for rider in self.riders if (error := rider.wait()) is not None]
        self.riders = []
        if wrong:
            raise wrong[0]

    def _let_others_come(self) -> None:
        """One or two calls begin, and come as far as they can while this one is where it is."""
        self.riders = [self.meet(self), self.meet(self)]
        for _ in range(SWITCHES):
            eventlet.sleep(0)

    def _start(self) -> QuotaApplication:
        self.arm(None)
        app = QuotaApplication(self.settings, self.clock)
        recorder: Any = app.log.recorder
        for question in ("select_rows", "select_stream", "select_known"):
            setattr(recorder, question, self._around(getattr(recorder, question), before="reading"))
        recorder.append_packed = self._around(recorder.append_packed, before="before the append", after="stored")
        recorder._insert_rows = self._around(recorder._insert_rows, after="inside the append")
        accounts: Any = app.accounts
        accounts.evolve = self._around(accounts.evolve, after="folding")
        app.on_commit = self._around(lambda _head: None, after="committed")
        projection: Any = app.projector.projection
        projection.apply = self._around(projection.apply, after="projecting")
        return app

    def _around(
        self, work: Callable[..., Any], before: str | None = None, after: str | None = None
    ) -> Callable[..., Any]:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            self._pass(before)
            done = work(*args, **kwargs)
            self._pass(after)
            return done

        return faulty

    def _pass(self, point: str | None) -> None:
        if point is None:
            return
        if self._outage and "error" in POINTS[point]:
            raise OperationalError("the database is away")
        if self.fault is None or self.fault.point != point:
            return
        self._passed += 1
        if self._passed < self.fault.nth:
            return
        self.fired, self.fault = self.fault, None
        if self.fired.met:
            self._let_others_come()
        match self.fired.kind:
            case "riders":
                return
            case "died":
                for rider in self.riders:  # before anything else runs: there is nobody left to run it
                    rider.kill(Died)
                raise Died
            case "killed":
                raise Killed
            case "race":
                self.race(self)
            case kind:
                self._outage = kind == "outage"
                raise OperationalError("the connection was lost")
