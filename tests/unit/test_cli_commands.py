"""The command line: what it lists, how it refuses, and with which exit codes. No service is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from services.billing.rebuild import Rebuilt
from shared.config import SERVICES
from shared.errors import MalformedCommand, TokengridError
from tokengrid import cli
from tokengrid.commands import bill_rebuild, subscription
from tokengrid.demo.run import MARKER

COMMANDS = ("demo", "up", "down", "status", "serve", "catalog", "account", "bill", "audit", "events")
SUBCOMMANDS = {
    "catalog": ("show", "history", "compare", "validate", "publish", "import", "sample"),
    "account": ("open", "grant", "balance", "statement", "debits"),
    "bill": (
        "list",
        "show",
        "html",
        "pdf",
        "charge-file",
        "check-charge-file",
        "focus",
        "check-focus",
        "settlement",
        "close",
        "draft",
        "rebuild",
        "what-if",
        "pay",
        "credit-note",
        "void",
        "credit",
    ),
    "audit": ("replay", "evidence", "verify", "witness", "new-key", "archive"),
    "audit archive": ("write", "verify", "restore", "statement"),
    "subscription": ("start", "change", "pause", "resume", "end", "list"),
}


def test_help_lists_every_command(capsys) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f" {name} " not in shown] == []


def test_without_a_command_help_is_shown(capsys) -> None:
    assert cli.run([]) == 0
    assert "tokengrid demo" in capsys.readouterr().out


@pytest.mark.parametrize("group", SUBCOMMANDS)
def test_help_of_a_group_lists_its_commands(capsys, group: str) -> None:
    assert cli.run([*group.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in SUBCOMMANDS[group] if f" {name} " not in shown] == []


@pytest.mark.parametrize("name", [*COMMANDS, *(f"{g} {c}" for g, names in SUBCOMMANDS.items() for c in names)])
def test_every_command_explains_itself(capsys, name: str) -> None:
    assert cli.run([*name.split(), "--help"]) == 0
    assert "Usage: tokengrid" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["demo", "--nonsense"],
        ["demo", "--calls", "0"],
        ["demo", "--calls", "many"],
        ["demo", "--month", "2026-13"],
        ["demo", "--against", "elsewhere"],
        ["account", "balance", "shanghai-telecom"],
        ["account", "grant", "shanghai-telecom", "a", "0"],
        ["bill", "settlement", "June"],
        ["bill", "focus", "June", "june.csv"],
        ["bill", "focus", "2026-06", "."],
        ["bill", "charge-file", "2026-06", "june.csv"],
        ["bill", "check-focus", "nothing.csv"],
        ["bill", "close", "June"],
        ["bill", "rebuild", "June"],
        ["bill", "rebuild", "2026-6"],
        ["bill", "what-if", "２０２６-06", "prices.yaml"],
        ["bill", "close", "0001-01"],
        ["bill", "pay", "n", "1.5"],
        ["bill", "pay", "n", "ten"],
        ["bill", "pay", "n", "5", "--request-id", ""],
        ["bill", "void", "n"],
        ["bill", "credit-note", "n", "0", "--reason", "r"],
        ["bill", "credit", "shanghai-telecom", "a", "-1", "--reason", "r"],
        ["bill", "draft", "shanghai-telecom", "2026-06"],
        ["bill", "draft", "shanghai-telecom", "a", "2026-06", "--all"],
        ["bill", "draft", "shanghai-telecom", "a", "June"],
        ["events", "nonsense"],
        ["catalog", "show", "models", "--operator", "shanghai-telecom"],
        ["catalog", "show", "rates", "--at", "0001-01-01"],
        ["up", "--replicas", "quota"],
        ["serve", "nonsense"],
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_sentence_with_exit_code_2(
    capsys, tmp_path: Path, monkeypatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert one_sentence(told.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["account", "balance", "shanghai-telecom", "a"],
        ["bill", "list"],
        ["bill", "focus", "2026-06", "june.csv"],
        ["bill", "close", "2026-06"],
        ["audit", "replay"],
        ["audit", "replay", "--from", "stream"],
        ["audit", "replay", "--from", "snapshot"],
        ["audit", "replay", "--from", "snapshot", "--database", "nothing"],
        ["audit", "log", "quota", "--from", "stream", "--broker", "nothing"],
        ["audit", "streams"],
        ["events", "quota"],
        ["account", "balance", "shanghai-telecom", "a", "--against", "up"],
        ["demo", "--trace", "nothing.csv"],
        ["demo", "--month", "2999-01"],
        ["catalog", "publish", "nothing.yaml"],
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence_with_exit_code_1(
    capsys, tmp_path: Path, monkeypatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert one_sentence(told.err)


def test_a_refusal_says_a_thing_once(capsys, monkeypatch) -> None:
    told = {"fields": {"fen": ["must not be 0"], "at": ["Not a valid datetime."]}}
    for text, shown in (
        ("fen must not be 0", "Fen must not be 0: at: Not a valid datetime."),
        ("There is no such shard.", "There is no such shard: at: Not a valid datetime.; fen: must not be 0."),
    ):
        monkeypatch.setattr(cli, "_command", refused_with(MalformedCommand(text, told)))
        assert cli.run([]) == 1
        assert capsys.readouterr().err == f"{shown}\n"


def refused_with(error: TokengridError) -> Callable[[], Any]:
    def command(**_: Any) -> None:
        raise error

    return lambda: command


def test_after_a_plan_was_taken_nothing_is_left_overdue_of_others(capsys, monkeypatch) -> None:
    rounds = [{"advanced": 200, "ordered": 500}, {"advanced": 0, "ordered": 3}, {"advanced": 0, "ordered": 0}]

    @contextmanager
    def asking(*_: Any) -> Iterator[Callable[..., Any]]:
        receipt = {"starts_at": "2026-06-01T00:00:00+08:00", "subscription": "s", "position": 1}
        yield lambda _, method, **__: rounds.pop(0) if method == "renew" else receipt

    monkeypatch.setattr(subscription, "asking", asking)
    assert cli.run(["subscription", "start", "shanghai-mobile", "000001", "payg"]) == 0
    assert rounds == []


@pytest.mark.parametrize("arguments", [["2026-05"], ["--operator", "nobody"]])
def test_a_rebuild_that_compares_nothing_proves_nothing(capsys, monkeypatch, arguments: list[str]) -> None:
    monkeypatch.setattr(bill_rebuild, "session", lambda *_: nullcontext())
    monkeypatch.setattr(bill_rebuild, "rebuild", lambda *_: Rebuilt(0, 0, (), 0, 0.0))
    assert cli.run(["bill", "rebuild", *arguments]) == 1
    assert one_sentence(capsys.readouterr().err)


def test_a_wrong_setting_is_named_by_its_variable(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TOKENGRID_PAGE_MAX", "none")
    left_by_a_demo(tmp_path)
    assert cli.run(["bill", "list", "--var", str(tmp_path)]) == 2
    assert "TOKENGRID_PAGE_MAX" in capsys.readouterr().err


def left_by_a_demo(folder: Path) -> Path:
    """As far as files' names go."""
    (folder / "demo").mkdir()
    for service in SERVICES:
        (folder / "demo" / f"{service}.db").write_text("no database")
    return folder / "demo"


def test_a_database_that_is_gone_is_not_begun_anew(capsys, tmp_path: Path) -> None:
    folder = left_by_a_demo(tmp_path)
    (folder / "quota.db").unlink()
    assert cli.run(["bill", "list", "--var", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert one_sentence(said)
    assert "quota.db" in said
    assert not (folder / "quota.db").exists()


def test_a_file_that_is_no_database_is_told_in_one_sentence(capfd, tmp_path: Path) -> None:
    left_by_a_demo(tmp_path)
    assert cli.run(["bill", "list", "--var", str(tmp_path)]) == 1
    assert one_sentence(capfd.readouterr().err)


def test_a_folder_that_no_demo_has_left_is_not_wiped(capsys, tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("keep")
    assert cli.run(["demo", "--var", str(tmp_path)]) == 1
    assert one_sentence(capsys.readouterr().err)
    assert precious.read_text() == "keep"


@pytest.mark.parametrize("month", ["1970-01", "2999-01"])
def test_a_month_that_cannot_be_leaves_what_the_last_demo_left(capsys, tmp_path: Path, month: str) -> None:
    folder = left_by_a_demo(tmp_path)
    (folder / MARKER).touch()
    assert cli.run(["demo", "--month", month, "--calls", "1", "--accounts", "1", "--var", str(tmp_path)]) == 1
    assert one_sentence(capsys.readouterr().err)
    assert (folder / "quota.db").read_text() == "no database"


def test_status_of_nothing_is_an_empty_list(capsys, tmp_path: Path) -> None:
    assert cli.run(["status", "--json", "--var", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_sample_catalogue_is_printed_as_a_file_that_can_be_published(capsys) -> None:
    from services.catalog.files import parse_catalogue
    from services.catalog.sample import sample_catalogue

    assert cli.run(["catalog", "sample"]) == 0
    assert parse_catalogue(capsys.readouterr().out) == sample_catalogue()


def test_the_program_starts_without_a_word_that_nobody_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "default::DeprecationWarning", "-m", "tokengrid.cli", "status", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout.strip(), "eventlet" in done.stderr.lower()) == ("[]", False)


def one_sentence(text: str) -> bool:
    lines = text.strip().splitlines()
    return len(lines) == 1 and "Traceback" not in text and len(lines[0]) > 10
