"""The main job as a person runs it: a month on this machine, to the audited bills, with nothing installed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.billing.focus.check import check_focus
from tests.waiting import eventually
from tokengrid import cli

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("TOKENGRID_REFERENCE", ROOT.parent / "shared")) / "data" / "traces"
REPORT = {
    "calls", "settled", "released", "refused", "tokens", "debited_mp", "events", "accounts", "bills", "balances_match",
    "bills_match", "log_verified", "wall_s", "calls_per_s", "rss_mb_max", "seed", "trace", "broken_lines",
    "debits_sha256", "bills_sha256",
}  # fmt: skip
MEASURED = {"wall_s", "calls_per_s", "rates_per_s", "rss_mb_max"}
SMALL = ("--calls", "600", "--accounts", "60")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tokengrid.cli", *arguments]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENGRID_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def process(*arguments: str, exit_code: int = 0) -> str:
    """What a command prints that is a process of its own."""
    done = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == exit_code, done.stderr + done.stdout
    return done.stdout


def tokengrid(*arguments: str) -> str:
    """What a command prints, without a process: it takes seconds to start one."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.run(arguments) == 0
    return printed.getvalue()


def demo(var: Path, *arguments: str, run: Callable[..., str] = tokengrid) -> dict[str, Any]:
    """The report of a run."""
    report: dict[str, Any] = json.loads(run("demo", "--json", "--var", str(var), *arguments))
    return report


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def report(var: Path) -> dict[str, Any]:
    return demo(var, *SMALL, run=process)


def test_the_report_has_every_figure(report: dict[str, Any]) -> None:
    assert report.keys() >= REPORT


def test_every_call_has_an_end(report: dict[str, Any]) -> None:
    assert report["calls"] == 600
    assert report["calls"] == sum(report[end] for end in ("settled", "released", "refused", "abandoned"))


def test_something_of_everything_happens(report: dict[str, Any]) -> None:
    assert report["settled"] > 400
    assert report["reasons"].keys() >= {"refused: InsufficientQuota", "released: Cancelled"}
    assert min(report["abandoned"], report["expired_reservations"], report["expired_grants"]) > 0
    assert report["statements"] == 6  # three operators, each with both others


def test_what_was_debited_is_what_was_billed(report: dict[str, Any]) -> None:
    assert (report["bills"], report["accounts"]) == (60, 60)
    assert report["billed_calls"] == report["settled"]
    assert report["billed_tokens"] == report["tokens"]
    assert report["billed_mp"] <= report["debited_mp"]  # less what was given back


def test_the_audit_agrees_with_all_of_it(report: dict[str, Any]) -> None:
    verdicts = ("balances_match", "bills_match", "statements_match", "invariants_hold", "calls_match", "log_verified")
    assert {name: report[name] for name in verdicts} == dict.fromkeys(verdicts, True)
    assert report["differences"] == []


def test_everything_lies_where_it_was_said(var: Path, report: dict[str, Any]) -> None:
    folder = var / "demo"
    assert json.loads((folder / "report.json").read_text()) == report
    assert (folder / "bill.html").read_text().lower().startswith("<!doctype html>")
    assert json.loads((folder / "settlement.json").read_text())["matrix"]


@pytest.mark.usefixtures("report")
def test_what_a_demo_left_can_be_asked_about(var: Path) -> None:
    there = ("--var", str(var), "--json")
    (bill,) = json.loads(tokengrid("bill", "list", "--account", "000001", *there))
    balance = json.loads(tokengrid("account", "balance", bill["operator"], "000001", *there))
    assert balance["status"] == "open"
    debits = json.loads(tokengrid("account", "debits", bill["operator"], "000001", *there))
    assert {debit["kind"] for debit in debits} == {"TokensDebited"}
    assert json.loads(tokengrid("audit", "replay", *there))["ok"]
    line = tokengrid("events", "quota", "--after", "0", "--limit", "1", "--var", str(var))
    assert re.match(r" +1  2026-06-01 00:00:00  \S+/\d{6} v1  AccountOpened  ", line)


@pytest.mark.usefixtures("report")
def test_a_bill_is_proved_with_a_file_and_public_keys(var: Path, tmp_path: Path) -> None:
    (bill,) = json.loads(tokengrid("bill", "list", "--account", "000001", "--var", str(var), "--json"))
    file, page = tmp_path / "a.evidence", tmp_path / "a.html"
    told = tokengrid("audit", "evidence", "--bill", bill["number"], str(file), "--html", str(page), "--var", str(var))
    keys = re.findall(r"--key (\S+)", told)
    assert bill["number"] in page.read_text()
    asked = [argument for key in keys for argument in ("--key", key)]
    assert json.loads(tokengrid("audit", "verify", str(file), *asked, "--json"))["bill"]["number"] == bill["number"]
    script = Path(__file__).parents[2] / "deploy" / "verify_evidence.py"
    alone = subprocess.run([sys.executable, script, file, *keys], capture_output=True, text=True, cwd=tmp_path)
    assert (alone.returncode, alone.stdout.partition(",")[0]) == (0, f"proven: {bill['number']}")


@pytest.mark.usefixtures("report")
def test_the_month_in_focus_costs_what_its_bills_say(var: Path, tmp_path: Path) -> None:
    file = tmp_path / "june.csv"
    tokengrid("bill", "focus", "2026-06", str(file), "--var", str(var))
    text = file.read_bytes().decode()
    assert check_focus(text) == []
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    billed, effective = (sum(Fraction(row[name]) for row in rows) * 100 for name in ("BilledCost", "EffectiveCost"))
    with contextlib.closing(sqlite3.connect(var / "demo" / "billing.db")) as billing:
        assert [(billed,), (effective,)] == billing.execute("SELECT sum(total_fen) FROM bills").fetchall() * 2


def test_a_second_run_starts_clean_and_comes_to_the_same(tmp_path: Path) -> None:
    small = (tmp_path, "--seed", "9", "--calls", "100", "--accounts", "10")
    found = [demo(*small), demo(*small, run=process)]  # a process has hashes of its own
    for each in found:  # how often a log is sealed goes by the clock on the wall
        each["events"] -= each["events_by_log"].pop("audit")
    first, second = ({k: v for k, v in each.items() if k not in MEASURED} for each in found)
    assert first == second


def test_another_seed_gives_another_month(tmp_path: Path, report: dict[str, Any]) -> None:
    other = demo(tmp_path, *SMALL, "--seed", "2")
    assert other["debits_sha256"] != report["debits_sha256"]
    assert other["bills_sha256"] != report["bills_sha256"]


def test_a_person_without_a_terminal_gets_plain_lines(tmp_path: Path) -> None:
    shown = process("demo", "--calls", "20", "--accounts", "10", "--var", str(tmp_path))
    assert "replaying the calls: 20 calls in " in shown
    assert "everything agrees" in shown
    assert "\x1b" not in shown


def test_broken_lines_are_reported_with_their_numbers_and_the_rest_runs(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\nwhat is this\n"
        "2023-11-16 18:15:50.99,396,109\n2023-11-16 18:15:51.22,many,55\n"
    )
    found = demo(tmp_path, "--trace", str(trace), "--accounts", "3")
    assert (found["calls"], found["broken_lines"]) == (2, 2)
    assert [broken["line"] for broken in found["broken"]] == [3, 5]
    assert found["audit_ok"]


def test_an_interrupt_ends_it_with_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    running = subprocess.Popen(
        command("demo", "--var", str(tmp_path)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        eventually(lambda: (tmp_path / "demo" / "billing.db").exists(), within_s=60)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=20)
    finally:
        running.kill()
    assert (running.returncode, told.strip()) == (130, "Interrupted.")
    assert [each.pid for each in psutil.process_iter() if _session_of(each.pid) == running.pid] == []
    assert demo(tmp_path, "--calls", "20", "--accounts", "5")["audit_ok"]  # and nothing stands in the next one's way


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


published = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the published traces are not in {REFERENCE}")


@published
@pytest.mark.parametrize("name", ["azure2023_dev.csv", "mooncake_conversation_dev.jsonl"])
def test_the_first_calls_of_a_published_trace_run(tmp_path: Path, name: str) -> None:
    found = demo(tmp_path, "--trace", str(REFERENCE / name), "--calls", "500", "--accounts", "50")
    assert (found["calls"], found["trace"], found["broken_lines"], found["audit_ok"]) == (500, name, 0, True)


@published
@pytest.mark.skipif("TOKENGRID_SOAK_SEEDS" not in os.environ, reason="a minute of one core: in `make soak`")
def test_a_whole_published_trace_runs_in_bounded_memory(tmp_path: Path) -> None:
    found = demo(tmp_path, "--trace", str(REFERENCE / "azure2023_dev.csv"), run=process)
    assert (found["calls"], found["accounts"], found["audit_ok"]) == (22_436, 1_000, True)
    assert found["rss_mb_max"] < 600
