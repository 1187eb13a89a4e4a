"""One seed, one life: clients, a network, two processes of quota on one log, a clock, a follower, and faults.

Everything random comes from one `Random`: no threads, no waiting, no time but the world's own. Each step is judged
at once (`Judge`), and all of it again when the faults have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import eventlet
from eventlet.greenthread import GreenThread

from services.quota.schemas import Balance, Sweep
from shared import errors
from shared.clock import FrozenClock
from shared.config import Settings
from shared.errors import TokengridError
from tests.folders import brief_folder
from tests.simulation import clients
from tests.simulation.faults import POINTS, Died, Fault, Killed, Process
from tests.simulation.judge import Judge
from tests.simulation.market import catalogue, prices
from tests.simulation.model import due
from tests.simulation.requests import Request, in_short, name_of, sent
from tests.unit.quota_world import START, migrated

STEPS = 120
RETRYABLE = [name for name, error in errors.catalogue().items() if error.retryable]
WRITING = [point for point in POINTS if point != "projecting"]
TOLD = 20  # steps that a failure tells of


class World:
    """Everything of one run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = Random(seed)
        self.steps: list[str] = []
        self.fired: list[Fault] = []
        self.refused: set[str] = set()
        self.judge = Judge(folder / "quota.db", prices())
        self.requests: list[Request] = []
        self.network: list[Request] = []
        self.in_work: Sequence[Request] = ()
        # Two accounts in memory for three that are used: they are dropped and folded anew all the time.
        settings = Settings(
            broker="inproc://localhost",
            var=folder,
            database=migrated(folder),
            accounts_cached_max=2,
            sweep_interval_s=0,
            telemetry="off",
        )
        self.processes = [Process(name, settings, FrozenClock(START), self.race, self.meet) for name in ("one", "two")]
        for process in self.processes:
            process.app.follow_catalog([e._asdict() for e in catalogue()])
        self.judge.open()

    def close(self) -> None:
        self.judge.close()
        for process in self.processes:
            process.close()

    # -- a life -----------------------------------------------------------------------------------
    def live(self, steps: int = STEPS) -> None:
        for account in ("a", "b"):
            self.open(account)
        choices: dict[Callable[[], None], float] = {
            self.issue: 40,
            self.deliver: 35,
            self.crowd: 15,
            self.retry: 10,
            self.duplicate: 5,
            self.lose: 5,
            self.move_clocks: 6,
            self.sweep: 5,
            self.follow: 7,
            self.ask: 4,
            self.crash: 2,
        }
        for step in self.dice.choices(list(choices), list(choices.values()), k=steps):
            step()
        self.recover()
        self.judge.final(self.processes)

    def open(self, account: str) -> None:
        """Something to begin with."""
        common = {"operator": clients.OPERATOR, "account": account, "occurred_at": None}
        first = {"command": "open_account", "request_id": "o", "credit_limit": 500_000}
        second = {"command": "grant", "request_id": "g", "amount": 5_000_000, "source": "purchase", "priority": 1}
        for fields in (first, second | {"scope": {}, "expires_at": None}):
            self.send(common | fields)
        while self.network:
            self._handle(self.processes[0], [self.network.pop(0)], None)

    def recover(self) -> None:
        """The faults have ended: every client gets its answer, the read model catches up, what is due expires."""
        self.note("the faults end")
        for _ in range(5):
            self.network += [r for r in self.requests if not r.answered]
            self.dice.shuffle(self.network)
            while self.network:
                self._handle(self.process(), [self.network.pop()], None)
        unanswered = [r.fields for r in self.requests if not r.answered]
        assert not unanswered, f"never answered, though nothing fails any more: {unanswered}"
        process = max(self.processes, key=lambda p: p.now)
        for _ in range(3):  # what a hold gives back may be over in its turn
            self._follow(process, 0, 5000)
            process.app.sweep(Sweep())
            self.judge.observe(self.processes)
        self._follow(process, 0, 5000)
        left = due(self.judge.books, process.now)
        assert not left, f"due, and not swept: {left}"

    # -- steps --------------------------------------------------------------------------------------
    def send(self, fields: dict[str, Any]) -> None:
        request = Request(fields)
        self.requests.append(request)
        self.network.append(request)
        self.judge.issued(fields)

    def issue(self) -> None:
        fields = clients.command(self.dice, self.asked, self.processes[0].now)
        self.note(f"a client asks {fields}")
        self.send(fields)

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [request.fields for request in self.requests]

    def retry(self) -> None:
        if waiting := [r for r in self.requests if not r.answered]:
            request = self.dice.choice(waiting)
            self.note(f"{name_of(request)} is sent again")
            self.network.append(request)

    def duplicate(self) -> None:
        if self.network:
            self.network.append(self.dice.choice(self.network))
            self.note(f"the network doubles {name_of(self.network[-1])}")

    def lose(self) -> None:
        if self.network:
            self.note(f"the network loses {name_of(self._take())}")

    def deliver(self) -> None:
        if self.network:
            self._handle(self.process(), self._batch(), self.fault(*WRITING))

    def crowd(self) -> None:
        """Several callers at once, while the first is on its way to the log and may fail there."""
        if self.network:
            point = self.dice.choice([point for point, kinds in POINTS.items() if "riders" in kinds])
            fault = Fault(point, self.dice.choice(POINTS[point]), 1, met=True)
            self._handle(self.process(), self._batch(), fault)

    def move_clocks(self) -> None:
        """Each process has a clock of its own; they jump, also back, and are never far from each other."""
        seconds = self.dice.choice([1, 5, 20, 60, 600, -10, -30])
        for process in self.processes:
            process.clock.advance(seconds)
        skew = timedelta(seconds=self.dice.randrange(-20, 21))
        self.processes[1].clock.now = self.processes[0].now + skew
        self.note(f"the clocks move {seconds} s; they differ by {skew.total_seconds():.0f} s")

    def sweep(self) -> None:
        process = self.process()
        query = Sweep(limit=self.dice.choice([1, 2, 500]))
        with self._faults(process, self.fault(*WRITING), f"sweeps {query.limit}"):
            before = self.judge.head
            told = process.app.sweep(query)
            self.judge.observe(self.processes)
            if process.fired is None:
                assert told["expired_reservations"] + told["expired_grants"] == self.judge.head - before

    def follow(self) -> None:
        process = self.process()
        again = self.dice.choice([0, 0, 1, 3])
        with self._faults(process, self.fault("projecting"), f"follows, {again} events again"):
            self._follow(process, again, self.dice.choice([1, 2, 7, 100]))

    def ask(self) -> None:
        process, account = self.process(), self.dice.choice(clients.ACCOUNTS)
        known_at = self.dice.choice([None, self.judge.some_time(self.dice)])
        with self._faults(process, self.fault("reading", "folding"), f"is asked for {account} as known at {known_at}"):
            before = self.judge.head
            query = Balance(operator=clients.OPERATOR, account=account, known_at=known_at)
            try:
                told: dict[str, Any] | None = process.app.balance(query)
            except TokengridError as refusal:
                if refusal.retryable:
                    raise
                told = None
            self.judge.observe(self.processes)
            self.judge.balance(account, told, process.now, known_at, before)

    def crash(self) -> None:
        process = self.process()
        self.note(f"process {process.name} is restarted")
        process.restart()

    # -- what they are made of ----------------------------------------------------------------------
    def process(self) -> Process:
        return self.dice.choices(self.processes, [3, 2])[0]

    def fault(self, *points: str) -> Fault | None:
        if self.dice.random() < 0.5:
            return None
        point = self.dice.choices(points, [3 if "append" in point else 1 for point in points])[0]
        often = point in ("reading", "folding")  # passed several times by one call
        kind = self.dice.choice(POINTS[point])
        met = kind == "riders" or ("riders" in POINTS[point] and self.dice.random() < 0.7)
        return Fault(point, kind, self.dice.choice([1, 2, 3, 4, 5]) if often else 1, met)

    def race(self, loser: Process) -> None:
        """Another process works in the middle of what this one does; often on the very same request."""
        (other,) = (p for p in self.processes if p is not loser)
        if other.busy:
            return
        if self.dice.random() < 0.5 and self.in_work:
            self.network.append(self.dice.choice(self.in_work))
        if things := [r.fields for r in self.in_work if "reservation" in r.fields]:
            thing = self.dice.choice(things)  # just now it comes into being
            fields = clients.command(self.dice, self.asked, other.now, "reserve")
            self.send(fields | {"account": thing["account"], "request_id": thing["reservation"]})
            self._handle(other, [self.network.pop()], self.fault(*WRITING))
        elif self.network:
            self._handle(other, self._batch(), self.fault(*WRITING))

    def meet(self, process: Process) -> GreenThread:
        """Another call begins in a process while one is at work there."""
        if not self.network:
            self.issue()
        requests = self._batch()
        self.note(f"  meanwhile it gets {[name_of(r) for r in requests]}")
        return eventlet.spawn(self._ride, process, requests)

    def _ride(self, process: Process, requests: list[Request]) -> Exception | None:
        """What went wrong with it is returned: it is raised where its process is waited for."""
        try:
            self._execute(process, requests, may_lose=True)
        except (Died, Killed):
            pass
        except TokengridError as error:
            if not error.retryable:
                return error
            self.note(f"  {error.code} for {[name_of(r) for r in requests]}")
        except Exception as error:  # noqa: BLE001 - whatever it is
            return error
        return None

    def _handle(self, process: Process, requests: list[Request], fault: Fault | None) -> None:
        self.in_work = requests
        with self._faults(process, fault, f"gets {[name_of(r) for r in requests]}"):
            self._execute(process, requests, may_lose=fault is not None)

    def _execute(self, process: Process, requests: list[Request], may_lose: bool) -> None:
        before, now = self.judge.head, process.now
        answers = process.app.execute([sent(r) for r in requests])
        self.judge.observe(self.processes)
        told = [(r, a) for r, a in zip(requests, answers, strict=True) if not self._failed(process, a)]
        self.judge.answers([r.fields for r, _ in told], [a for _, a in told], before, now)
        for request, answer in told:
            if may_lose and self.dice.random() < 0.3:
                self.note(f"  the answer to {name_of(request)} is lost")
                continue
            request.answered = True
            self.judge.acknowledged(request.fields, answer)
            self.note(f"  {name_of(request)} is told {in_short(answer)}")
            self.refused |= {answer["error"]["code"]} if "error" in answer else set()

    @staticmethod
    def _failed(process: Process, answer: dict[str, Any]) -> bool:
        """No answer but a failure: the client asks again."""
        return process.fired is not None and answer.get("error", {}).get("code") in RETRYABLE

    def _follow(self, process: Process, again: int, limit: int) -> None:
        after = process.app.projector.position()
        page = process.app.log.read(max(after - again, 0), limit)
        reached = process.app.follow_quota([e._asdict() for e in page])
        assert reached == max(after, page[-1].position if page else 0)

    @contextmanager
    def _faults(self, process: Process, fault: Fault | None, what: str) -> Iterator[None]:
        """What a call may fail with; what it had stored by then is judged as well."""
        self.note(f"process {process.name} {what}{'; ' + ' '.join(map(str, fault)) if fault else ''}")
        process.arm(fault)
        process.busy = True
        try:
            yield
        except Died:
            self.note(f"  process {process.name} died")
            self.fired += [process.fired] if process.fired else []
            process.restart()
        except Killed:
            self.note("  the call was killed")
        except TokengridError as error:
            if not error.retryable or process.fired is None:
                raise
            self.note(f"  {error.code}")
        finally:
            process.wait_for_riders()
            self.fired += [process.fired] if process.fired else []
            process.busy = False
            process.arm(None)
        self.judge.observe(self.processes)

    def _batch(self) -> list[Request]:
        count = self.dice.choice([1, 1, 1, 2, 5])
        return [self._take() for _ in range(min(count, len(self.network)))]

    def _take(self) -> Request:
        return self.network.pop(self.dice.randrange(len(self.network)))

    def note(self, step: str) -> None:
        self.steps.append(step)


def run(seed: int, steps: int = STEPS) -> World:
    """One life. Raises AssertionError, with what led to it, when the ledger did not keep its word."""
    with brief_folder() as folder:
        world = World(Path(folder), seed)
        try:
            world.live(steps)
        except Exception as error:
            told = "\n".join(world.steps[-TOLD:])
            raise AssertionError(
                f"seed {seed}, step {len(world.steps)}: {error!r}\n{told}\n"
                f"again: TOKENGRID_TEST_SEED={seed} TOKENGRID_SOAK_SEEDS=1 pytest tests/simulation -k life"
            ) from error
        finally:
            world.close()
        return world
