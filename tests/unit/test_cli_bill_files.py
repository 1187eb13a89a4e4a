"""`tokengrid bill`: the files it writes, over many pages, and what it says of a file from elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.chargecheck import check_charge_file
from services.billing.focus.check import check_focus
from services.billing.questions import BillPage, ChargeFile, Focus
from shared.contracts.base import Usage
from shared.contracts.schema import parse
from shared.errors import Unavailable
from tests.unit.billing_world import QuotaLog, billing, follow, issue, june
from tests.unit.focus_bills import EVERY_KIND, read, written
from tokengrid import cli
from tokengrid.commands import bill_files

OPERATOR = "sh-telecom"
ACCOUNTS = 5
TAKES = {"focus": Focus, "charge_file": ChargeFile, "bill_page": BillPage}
Ask = Callable[..., Any]


def asks(app: BillingApplication) -> Ask:
    """Billing's answers without a broker between; what is None is left out, as the client does."""

    def ask(service: str, method: str, **fields: Any) -> Any:
        assert service == "billing"
        given = {name: value for name, value in fields.items() if value is not None}
        return getattr(app, method)(parse(TAKES[method], given))

    return ask


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BillingApplication:
    made, quota = billing(tmp_path / "var"), QuotaLog()
    for number in range(ACCOUNTS):
        quota.open(account=f"a{number}")
        quota.debit(june(3), Usage(input=250_000), overdrawn=250_000_000, account=f"a{number}")
    follow(made, quota)
    issue(made, quota)
    let_ask(monkeypatch, asks(made))
    monkeypatch.setattr(bill_files, "FOCUS_PAGE", 2)
    monkeypatch.chdir(tmp_path)
    return made


def let_ask(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    @contextmanager
    def asking(*_: Any) -> Iterator[Ask]:
        yield ask

    monkeypatch.setattr(bill_files, "asking", asking)


def text(name: str) -> str:
    return Path(name).read_bytes().decode()


@pytest.mark.usefixtures("app")
class TestFocus:
    def test_all_pages_are_one_file_with_one_header(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["bill", "focus", "2026-06", "june.csv"]) == 0
        assert f"{ACCOUNTS} rows" in capsys.readouterr().out
        assert len(read(text("june.csv"))) == ACCOUNTS
        assert check_focus(text("june.csv")) == []
        assert cli.run(["bill", "focus", "2026-06", "other.csv", "--operator", OPERATOR]) == 0
        assert text("other.csv") == text("june.csv")

    def test_no_file_is_made_of_an_operator_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        for command in ("focus", "charge-file"):
            assert cli.run(["bill", command, "2026-06", "other.csv", "--operator", "another"]) == 1
            assert "No operator 'another'." in capsys.readouterr().err
            assert not Path("other.csv").exists()

    def test_a_folder_is_no_file_to_write(self, capsys: pytest.CaptureFixture[str]) -> None:
        for command, folder in itertools.product(("focus", "charge-file"), ("/", ".")):
            assert cli.run(["bill", command, "2026-06", folder, "--operator", OPERATOR]) == 2
            assert "is a directory" in capsys.readouterr().err

    def test_a_file_that_could_not_be_finished_is_not_there(
        self, app: BillingApplication, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("june.csv").write_text("of before")
        ask = asks(app)

        def breaks(service: str, method: str, **fields: Any) -> Any:
            if fields["after"]:
                raise Unavailable("gone")
            return ask(service, method, **fields)

        let_ask(monkeypatch, breaks)
        assert cli.run(["bill", "focus", "2026-06", "june.csv"]) == 1
        assert text("june.csv") == "of before"
        assert [file.name for file in Path().iterdir() if "june" in file.name] == ["june.csv"]


@pytest.mark.usefixtures("app")
class TestChargeFile:
    def test_one_file_has_the_name_it_was_given(self) -> None:
        assert cli.run(["bill", "charge-file", "2026-06", "june.csv", "--operator", OPERATOR]) == 0
        assert check_charge_file(text("june.csv")) == []

    def test_several_have_numbers_and_follow_each_other(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["bill", "charge-file", "2026-06", "june.csv", "--operator", OPERATOR, "--limit", "2"]) == 0
        assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
            "june-1.csv",
            "june-2.csv",
            "june-3.csv",
        ]
        assert not Path("june.csv").exists()
        assert [check_charge_file(text(f"june-{number}.csv")) for number in (1, 2, 3)] == [[], [], []]
        assert text("june-2.csv").splitlines()[0].endswith(",sh-telecom-2026-06-000002")

    def test_a_void_bill_is_taken_back_in_one_of_them(self, app: BillingApplication) -> None:
        app.submit("void", {"request_id": "v", "number": f"{OPERATOR}-2026-06-000001", "reason": "wrong"})
        assert cli.run(["bill", "charge-file", "2026-06", "june.csv", "--operator", OPERATOR, "--limit", "1"]) == 0
        files = [text(f"june-{number}.csv").splitlines() for number in range(1, ACCOUNTS)]
        assert [[line.split(",")[1] for line in lines if line.startswith("V")] for lines in files] == [
            [],
            [f"{OPERATOR}-2026-06-000001"],
            [],
            [],
        ]

    def test_a_check_names_every_finding_with_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        cli.run(["bill", "charge-file", "2026-06", "june.csv", "--operator", OPERATOR])
        assert cli.run(["bill", "check-charge-file", "june.csv"]) == 0
        Path("june.csv").write_bytes(text("june.csv").replace(",100,", ",101,", 1).encode())
        capsys.readouterr()
        assert cli.run(["bill", "check-charge-file", "june.csv"]) == 1
        said = capsys.readouterr().out
        assert "june.csv:7: the sum of fen is 501, and the trailer says 500" in said
        assert "june.csv:7: changed" in said


class TestCheckFocus:
    def test_a_good_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "good.csv"
        file.write_bytes(written(EVERY_KIND).encode())
        assert cli.run(["bill", "check-focus", str(file)]) == 0
        assert capsys.readouterr().out == f"{file}: nothing wrong\n"

    def test_every_finding_with_its_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "bad.csv"
        file.write_bytes(written(EVERY_KIND).replace("CNY", "Yuan").encode())
        assert cli.run(["bill", "check-focus", str(file)]) == 1
        said = capsys.readouterr().out.splitlines()
        assert said[0] == f"{file}:2: BillingCurrency: 'Yuan': no national currency of ISO 4217 (CurrencyFormat)"
        assert len(said) == len(read(written(EVERY_KIND)))

    def test_what_is_no_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "bad.csv"
        file.write_bytes(b"a\xff")
        assert cli.run(["bill", "check-focus", str(file)]) == 1
        assert "not UTF-8, at byte 1" in capsys.readouterr().err
