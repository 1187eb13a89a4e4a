"""kill -9 the service, the database and the broker in turn, under load: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import eventlet
import pytest

from services.catalog.sample import sample_publication
from shared.errors import TokengridError
from shared.messaging.client import Client
from tests.waiting import eventually
from tokengrid import up as shape
from tokengrid.servers import PostgreSQL

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

OPERATOR = "shanghai-telecom"
CALLERS = 8
RETRYABLE = {"Unavailable", "DeadlineExceeded", "Conflict", "Busy"}
USAGE = {"input": 10}


@pytest.fixture(scope="module")
def var(servers_folder: Path) -> Iterator[Path]:
    folder = servers_folder / "kills"
    shape.up(folder)
    yield folder
    shape.down(folder)
    PostgreSQL(folder / "up" / "postgresql").remove()


class Caller:
    """Debits one account again and again; repeats each request until it is answered."""

    def __init__(self, client: Client, account: str) -> None:
        self.client = client
        self.wallet = {"operator": OPERATOR, "account": account}
        self.answers: list[dict[str, Any]] = []
        self.repeats = 0
        self.stopping = False

    def ask(self, method: str, **fields: Any) -> Any:
        while True:
            try:
                return self.client.call("quota", method, deadline_s=3, **self.wallet, **fields)
            except TokengridError as error:
                if error.code not in RETRYABLE:
                    raise
                self.repeats += 1
                eventlet.sleep(0.05)

    def run(self) -> None:
        self.ask("open_account", request_id="open")
        self.ask("grant", request_id="grant", amount=10**12, source="purchase")
        while not self.stopping:
            number = len(self.answers)
            self.answers.append(self.ask("debit", request_id=f"d{number}", model="kimi-k2.5", usage=USAGE))


def kill(var: Path, name: str) -> None:
    (row,) = [row for row in shape.status(var) if row.name == name]
    assert row.pid
    os.kill(row.pid, signal.SIGKILL)


def test_whatever_is_killed_nothing_acknowledged_is_lost_or_doubled(var: Path) -> None:
    with Client(shape.client_settings(var)) as client:
        client.call("catalog", "publish", retries=5, **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        head = client.call("catalog", "head")
        eventually(lambda: client.call("quota", "status")["followed"]["catalog"] == head)
        callers = [Caller(client, f"k{n}") for n in range(CALLERS)]
        threads = [eventlet.spawn(caller.run) for caller in callers]

        def more_is_answered() -> None:
            before = [len(c.answers) for c in callers]
            eventually(lambda: all(len(c.answers) > n + 10 for c, n in zip(callers, before, strict=True)), within_s=60)

        more_is_answered()
        for victim in ("quota-1", "postgresql", "quota-2", "rabbitmq", "postgresql", "quota-1", "rabbitmq"):
            kill(var, victim)
            if victim in ("postgresql", "rabbitmq"):
                eventually(lambda v=victim: v in {r.name for r in shape.status(var) if r.state == "stopped"})
                shape.up(var)  # the supervisor brings back services; servers come back with `up`
            more_is_answered()
        for caller in callers:
            caller.stopping = True
        for thread in threads:
            thread.wait()
        assert sum(c.repeats for c in callers) > 0, "something must have been in the way"

        for caller in callers:
            stored: list[dict[str, Any]] = []
            while True:
                page = caller.ask("statement", after=len(stored), limit=1000)
                stored += page["events"]
                if not page["more"]:
                    break
            debits = [e for e in stored if e["kind"] == "TokensDebited"]
            names = [e["request_id"] for e in debits]
            assert names == [f"d{n}" for n in range(len(caller.answers))], "each request once, in order, none lost"
            assert [e["position"] for e in debits] == [a["position"] for a in caller.answers]
            balance = caller.ask("balance")
            assert balance["available"] == 10**12 - sum(e["amount"] for e in debits)
