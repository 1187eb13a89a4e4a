"""kill -9 the service, the database and the broker in turn, under load: nothing acknowledged is lost or doubled.

A few kills in every run; dozens of them with TOKENGRID_SOAK_KILLS=48, in an order that the seed gives.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import eventlet
import pytest

from services.audit.replay import run_audit
from services.catalog.sample import sample_publication
from shared.errors import TokengridError
from shared.messaging.client import Client
from tests.waiting import eventually
from tokengrid import up as shape

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

OPERATOR = "shanghai-telecom"
MODEL = "kimi-k2.5"
CALLERS = 8
DEADLINE_S = 3.0
RETRYABLE = {"Unavailable", "DeadlineExceeded", "Conflict", "Busy"}
USAGE = {"input": 10}
SERVERS = ("postgresql", "rabbitmq")
VICTIMS = ("quota-1", "quota-2", *SERVERS)
SOAK_KILLS = int(os.environ.get("TOKENGRID_SOAK_KILLS", "0"))


class Caller:
    """Uses one account in every way, again and again; repeats each request until it is answered."""

    def __init__(self, client: Client, account: str) -> None:
        self.client = client
        self.wallet = {"operator": OPERATOR, "account": account}
        self.answers: dict[str, int] = {}  # the position that each acknowledged request was told
        self.repeats = 0
        self.longest_s = 0.0
        self.stopping = False

    def ask(self, method: str, **fields: Any) -> Any:
        while True:
            began = monotonic()
            try:
                return self.client.call("quota", method, deadline_s=DEADLINE_S, **fields)
            except TokengridError as error:
                if error.code not in RETRYABLE:
                    raise
                self.repeats += 1
                eventlet.sleep(0.05)
            finally:
                self.longest_s = max(self.longest_s, monotonic() - began)

    def do(self, command: str, **fields: Any) -> None:
        self.acknowledged(self.ask(command, **self.wallet, **fields))

    def acknowledged(self, answer: dict[str, Any]) -> None:
        request = answer["request_id"]
        assert self.answers.setdefault(request, answer["position"]) == answer["position"]

    def run(self) -> None:
        self.do("open_account", request_id="open")
        self.do("grant", request_id="grant", amount=10**12, source="purchase")
        number = 0
        while not self.stopping:
            self.do("debit", request_id=f"d{number}", model=MODEL, usage=USAGE)
            self.do("reserve", request_id=f"h{number}", model=MODEL, amount=50_000, ttl_s=3600)
            self.do("settle", request_id=f"p{number}", reservation=f"h{number}", usage=USAGE, final=False)
            self.do("settle", request_id=f"s{number}", reservation=f"h{number}", usage=USAGE)
            two = [{"model": MODEL, "usage": USAGE, "request_id": f"e{number}.{n}"} for n in range(2)]
            commands = [{"command": "debit", **self.wallet, **fields} for fields in two]
            for answer in self.ask("execute", commands=commands):
                self.acknowledged(answer["ok"])
            number += 1

    def stored(self) -> list[dict[str, Any]]:
        """All events of the account."""
        events: list[dict[str, Any]] = []
        more = True
        while more:
            page = self.ask("statement", **self.wallet, after=len(events), limit=1000)
            events += page["events"]
            more = page["more"]
        return events


def kill(var: Path, name: str) -> None:
    """Kill it, as soon as it runs: it may be on its way back from the last time."""
    running: list[int] = []

    def runs() -> bool:
        running[:] = [row.pid for row in shape.status(var) if row.name == name and row.pid]
        return bool(running)

    eventually(runs, within_s=60)
    os.kill(running[0], signal.SIGKILL)


def kill_under_load(var: Path, victims: list[str]) -> dict[str, Any]:
    """Kill them in turn while callers are at work; the figures of what came of it, which must all be as promised."""
    with Client(shape.client_settings(var)) as client:
        if not client.call("catalog", "head", retries=5):
            client.call("catalog", "publish", retries=5, **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        head = client.call("catalog", "head", retries=5)
        eventually(lambda: client.call("quota", "status", retries=5)["followed"]["catalog"] == head)
        run = f"{datetime.now(UTC):%H%M%S}"
        callers = [Caller(client, f"k{run}-{n}") for n in range(CALLERS)]
        threads = [eventlet.spawn(caller.run) for caller in callers]

        def more_is_answered() -> None:
            before = [len(c.answers) for c in callers]
            eventually(lambda: all(len(c.answers) > n + 10 for c, n in zip(callers, before, strict=True)), within_s=60)

        more_is_answered()
        for victim in victims:
            kill(var, victim)
            if victim in SERVERS:
                eventually(lambda v=victim: v in {r.name for r in shape.status(var) if r.state == "stopped"})
                shape.up(var)  # the supervisor brings back services; servers come back with `up`
            more_is_answered()
        for caller in callers:
            caller.stopping = True
        for thread in threads:
            thread.wait()
        lost = doubled = 0
        for caller in callers:
            events = caller.stored()
            positions = {event["request_id"]: event["position"] for event in events}
            lost += sum(positions.get(request) != told for request, told in caller.answers.items())
            doubled += sum(count - 1 for count in Counter(e["request_id"] for e in events).values())
        report = run_audit(client, "2026-05")
        return {
            "kills": len(victims),
            "acknowledged": sum(len(c.answers) for c in callers),
            "repeated": sum(c.repeats for c in callers),
            "lost": lost,
            "doubled": doubled,
            "longest_call_s": round(max(c.longest_s for c in callers), 1),
            "audit": (report.invariants_hold, report.balances_match, report.log_verified),
        }


def check(figures: dict[str, Any]) -> None:
    assert (figures["lost"], figures["doubled"], figures["audit"]) == (0, 0, (True, True, True)), figures
    assert figures["repeated"] > 0, "something must have been in the way"
    assert figures["longest_call_s"] < DEADLINE_S + 5, "an answer or a clear timeout"


def test_whatever_is_killed_nothing_acknowledged_is_lost_or_doubled(production_shape: Path, seed: int) -> None:
    victims = list(VICTIMS)
    Random(seed).shuffle(victims)
    check(kill_under_load(production_shape, victims))


@pytest.mark.skipif(not SOAK_KILLS, reason="dozens of kills: in `make soak`, or with TOKENGRID_SOAK_KILLS=48")
@pytest.mark.timeout(7200)
def test_dozens_of_kills_in_any_order(production_shape: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    figures = kill_under_load(production_shape, Random(seed).choices(VICTIMS, k=SOAK_KILLS))
    with capsys.disabled():
        print(f"\nkills, seed {seed}: {figures}")  # noqa: T201 - figures for whoever runs it
    check(figures)
