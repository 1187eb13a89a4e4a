"""The optional job `make focus-validator`: its own defects are told from findings, and what it lacks is said."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("focus_validator", DEPLOY / "focus_validator.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(**outcomes: str) -> str:
    """A report with rules by name (`_` for `-`): `ok`, `skipped` or `failure`; a composite is number 000."""
    cases = ""
    for name, came_to in outcomes.items():
        rule = name.replace("_", "-")
        kind = "Composite" if "-000-" in rule else "Validation"
        cases += f'<testcase name="{rule} :: {kind}">' + ("" if came_to == "ok" else f"<{came_to}/>") + "</testcase>"
    return f"<testsuites><testsuite>{cases}</testsuite></testsuites>"


def test_a_known_defect_is_told_and_no_finding(job: ModuleType) -> None:
    found = job.outcome(report(InvoiceId_C_004_C="failure", InvoiceId_C_000_C="failure", SkuId_C_004_C="skipped"))
    assert found == (2, ["InvoiceId-C-004-C"], [])
    assert any("known    InvoiceId-C-004-C: " in line for line in job.lines(Path("f"), found))


def test_anything_else_is_a_finding(job: ModuleType) -> None:
    found = job.outcome(report(InvoiceId_C_004_C="failure", BilledCost_C_003_M="failure", ListCost_C_002_M="error"))
    assert found.unknown == ["BilledCost-C-003-M", "ListCost-C-002-M"]


def test_a_composite_that_fails_without_a_part_is_one_too(job: ModuleType) -> None:
    assert job.outcome(report(SkuId_C_000_C="failure", SkuId_C_001_M="ok")).unknown == ["SkuId-C-000-C"]


def test_a_machine_without_the_python_it_needs_is_told_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", str(DEPLOY / "focus-validator.sh")],
        cwd=tmp_path,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "needs Python 3.12 or 3.13, and there is none here" in done.stderr
    assert list(tmp_path.iterdir()) == []
