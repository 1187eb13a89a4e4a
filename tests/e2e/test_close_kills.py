"""kill -9 a process that closes a month, wherever it is: run again, it comes to the bills of one that nobody killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from services.billing.questions import CloseStatus
from shared.contracts.base import Usage
from tests.unit.billing_world import JUNE, QuotaLog, billing, follow, issued, june

ROOT = Path(__file__).parents[2]
OPERATORS = ("cm-gd", "sh-telecom")
ACCOUNTS = 400  # of each
PIECES = len(OPERATORS) * ACCOUNTS // 20
KILLS = 5


class Closers:
    """Processes that close the month, one after the other."""

    def __init__(self) -> None:
        self._maker = subprocess.Popen(
            [sys.executable, "-m", "tests.closing_process"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _told(self) -> list[str]:
        assert self._maker.stdout is not None
        return self._maker.stdout.readline().split()

    def close(self, folder: Path, head: int, kill_after: int | None = None) -> tuple[int, int]:
        """Close the month, or kill the process when it has told so many pieces; how many it told, and its exit code."""
        assert self._maker.stdin is not None
        self._maker.stdin.write(f"{folder} {head}\n")
        self._maker.stdin.flush()
        began, pid = self._told()
        assert began == "began"
        done = 0
        while True:
            if done == kill_after:
                os.kill(int(pid), signal.SIGKILL)
                kill_after = None
            told, number = self._told()
            if told == "ended":
                return done, int(number)
            done += 1

    def end(self) -> None:
        self._maker.kill()
        self._maker.communicate(timeout=30)


@pytest.fixture
def closers() -> Iterator[Closers]:
    made = Closers()
    yield made
    made.end()


def june_of(rng: Random) -> QuotaLog:
    quota = QuotaLog()
    for operator in OPERATORS:
        for n in range(ACCOUNTS):
            quota.open(operator=operator, account=f"{n:06d}")
    for n in range(0, ACCOUNTS, 5):
        who = {"operator": rng.choice(OPERATORS), "account": f"{n:06d}", "serving": rng.choice(OPERATORS)}
        quota.debit(june(rng.randrange(1, 31)), Usage(input=2_500), overdrawn=rng.randrange(2_500_000), **who)
    return quota


def test_killed_at_any_moment_and_run_again_it_comes_to_the_same_bills(
    tmp_path: Path, seed: int, closers: Closers
) -> None:
    rng = Random(seed)
    quota = june_of(rng)
    app = billing(tmp_path / "killed")
    follow(app, quota)
    app.close()
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")

    done = 0
    for kill in range(KILLS):
        after = rng.randint(1, max(1, (PIECES * 3 // 4 - done) // (KILLS - kill)))
        # Quota's log has grown and billing does not follow it: only the cut-off of the bills that are there will do.
        told, code = closers.close(tmp_path / "killed", quota.head + kill, after)
        assert code == -signal.SIGKILL
        done += told
    assert done < PIECES, "killed in the middle"
    assert closers.close(tmp_path / "killed", quota.head + KILLS)[1] == 0
    assert closers.close(tmp_path / "whole", quota.head)[1] == 0

    killed, whole = billing(tmp_path / "killed"), billing(tmp_path / "whole")
    assert [e.fields for e in killed.log.read(0, 5000)] == [e.fields for e in whole.log.read(0, 5000)]
    bills = issued(killed.log)
    assert len({(bill.operator, bill.account) for bill in bills}) == len(bills) == len(OPERATORS) * ACCOUNTS
    for operator in OPERATORS:
        numbers = [bill.number for bill in bills if bill.operator == operator]
        assert numbers == [f"{operator}-{JUNE}-{n:06d}" for n in range(1, ACCOUNTS + 1)]
    assert killed.close_status(CloseStatus(period=JUNE))["statements"] == 2
    killed.close()
    whole.close()
