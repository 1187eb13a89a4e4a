"""The main job against the production shape: RabbitMQ, PostgreSQL, each service as processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.messaging.client import Client
from tests.waiting import eventually
from tokengrid import up as shape

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def var(production_shape: Path) -> Path:
    return production_shape


def tokengrid(*arguments: str) -> Any:
    """What a command prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "tokengrid.cli", *arguments, "--against", "up", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reports(production_shape: Path) -> list[dict[str, Any]]:
    """Of two months of different subscribers, on one set of servers."""
    of_one = ("demo", "--calls", "300", "--accounts", "30", "--var", str(production_shape))
    of_another = ("demo", "--calls", "100", "--accounts", "10", "--seed", "2", "--var", str(production_shape))
    return [tokengrid(*of_one), tokengrid(*of_another)]


def test_two_months_of_different_subscribers_are_billed_and_audited_on_one_set_of_servers(
    reports: list[dict[str, Any]],
) -> None:
    assert [(r["calls"], r["bills"], r["audit_ok"]) for r in reports] == [(300, 30, True), (100, 10, True)]
    first, _ = reports
    assert first["calls"] == sum(first[end] for end in ("settled", "released", "refused", "abandoned"))


@pytest.mark.usefixtures("reports")
def test_what_runs_can_be_asked_about(var: Path) -> None:
    bills = tokengrid("bill", "list", "--limit", "3", "--var", str(var))
    assert len(bills) == 3
    found = tokengrid("account", "balance", bills[0]["operator"], bills[0]["account"], "--var", str(var))
    assert found["status"] == "open"


def stock_client(var: Path) -> dict[str, str]:
    """The README's tour, in a process that has nothing of ours to import."""
    (tour,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert "tokengrid" not in tour.replace("TOKENGRID_BROKER", "")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TOKENGRID"))}
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", tour],
        env={**environment, "TOKENGRID_BROKER": shape.client_settings(var).broker},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held, spent, position, available = re.findall(r"\d+", done.stdout)
    return {"held": held, "spent": spent, "position": position, "available": available}


@pytest.mark.usefixtures("reports")
def test_the_tour_of_the_readme_runs_with_a_stock_client_and_twice_it_changes_nothing(var: Path) -> None:
    first = stock_client(var)
    assert first == stock_client(var)
    assert int(first["available"]) == 10_000_000_000 - int(first["spent"])


def test_services_killed_under_load_come_back_and_nothing_is_lost_or_doubled(var: Path) -> None:
    arguments = ["demo", "--calls", "1600", "--accounts", "60", "--seed", "9", "--against", "up", "--json"]
    demo = subprocess.Popen(
        [sys.executable, "-m", "tokengrid.cli", *arguments, "--var", str(var)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with Client(shape.client_settings(var)) as client:
        for victim in ("quota-1", "quota-2", "routing-1", "billing-1"):
            grown = client.call("quota", "head", retries=20) + 200
            eventually(lambda g=grown: client.call("quota", "head", retries=20) > g, within_s=60)
            (row,) = [row for row in shape.status(var) if row.name == victim]
            assert row.pid
            os.kill(row.pid, signal.SIGKILL)
    out, _ = demo.communicate(timeout=240)
    report = json.loads(out)
    assert (report["audit_ok"], report["differences_count"], report["calls"]) == (True, 0, 1600)
    assert {r.name: r.state for r in shape.status(var)}["quota-1"] == "running"
