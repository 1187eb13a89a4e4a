"""`tokengrid audit archive` over an archive and over nothing: what it prints, refuses, and its exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from shared.transparency.keys import SigningKey
from tests.unit.archive_world import World, a_few_days
from tokengrid import cli
from tokengrid.session import demo_folder


def run(capsys: Any, *arguments: str | Path) -> tuple[int, str, str]:
    code = cli.run(["audit", "archive", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_verify_and_its_keys(capsys: Any, world: World) -> None:
    code, out, _ = run(capsys, "verify", world.archive, "--json")
    assert code == 0
    assert {row["log"] for row in json.loads(out)} == {"quota", "billing", "catalog", "routing", "audit"}
    keys = world.client.call("audit", "status")["verifier_keys"]
    assert run(capsys, "verify", world.archive, "--key", keys["quota"])[0] == 0
    other = keys["quota"].replace("/quota+", "/billing+")
    code, out, _ = run(capsys, "verify", world.archive, "--key", other)
    assert code != 0
    assert run(capsys, "verify", world.archive, "--key", "nonsense")[0] == 1
    of_a_shard = str(SigningKey.generate("tokengrid/quota-0").verifier)
    code, out, err = run(capsys, "verify", world.archive, "--key", of_a_shard)
    assert (code, out) == (2, "")
    assert "quota-0" in err
    assert run(capsys, "restore", world.archive, "--database", "nonsense")[0] == 1


def test_statement_and_restore(capsys: Any, world: World, tmp_path: Path) -> None:
    operator, account = world.market.accounts[0]
    code, out, _ = run(capsys, "statement", world.archive, operator, account, "--json")
    assert code == 0
    assert json.loads(out)[0]["kind"] == "AccountOpened"
    assert run(capsys, "statement", world.archive, operator, account)[1].count("AccountOpened") == 1
    code, out, _ = run(capsys, "restore", world.archive, "--into", tmp_path, "--json")
    assert (code, json.loads(out)["quota"]) == (0, world.size)
    assert (tmp_path / "quota.db").exists()
    assert json.loads(run(capsys, "restore", world.archive, "--into", tmp_path, "--json")[1])["quota"] == 0


def test_write_from_what_the_demo_left(capsys: Any, tmp_path: Path) -> None:
    """`write` takes the demo's databases and its audit service; a second run has nothing to do."""
    a_few_days(demo_folder(tmp_path), 5).close()
    folder = tmp_path / "archive"
    code, out, err = run(capsys, "write", folder, "--var", tmp_path, "--json")
    assert code == 0, err
    rows = {row["log"]: row for row in json.loads(out)}
    assert rows["quota"]["events"] > 0
    assert rows["quota"]["signed_by"]
    assert json.loads(run(capsys, "write", folder, "--var", tmp_path, "--json")[1]) == list(rows.values())
    assert run(capsys, "verify", folder)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("verify", "/nowhere"), 1),
        (("statement", "/nowhere", "a", "b"), 1),
        (("restore", "/nowhere", "--into", "x"), 1),
        (("restore", "/nowhere"), 2),
        (("restore", "/nowhere", "--into", "x", "--database", "sqlite://"), 2),
        (("write", "x", "--before", "yesterday"), 2),
        (("write", "x", "--to", "quota"), 2),
        (("write", "x", "--to", "quota=-1"), 2),
        (("write", "x", "--to", "quota=99999999999999999999"), 2),
        (("write", "x", "--var", "/nowhere"), 1),
        (("drop", "/nowhere"), 1),
        (("drop", "x", "--until", "0"), 2),
    ],
)
def test_refusals_say_one_sentence(capsys: Any, arguments: tuple[str, ...], code: int) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.strip()
    assert "Traceback" not in err


def test_without_the_extra_it_says_what_to_install(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("services.audit.archive.", "shared.archive."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run(capsys, "verify", "/nowhere")
    assert code == 1
    assert "pip install 'tokengrid[archive]'" in err
