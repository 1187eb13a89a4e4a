"""`python -m tokengrid.serve`: what it refuses, in one sentence, before anything starts."""

from __future__ import annotations

import pytest

from shared.config import SERVICES
from shared.errors import SetupFailed
from tokengrid.serve import CLASSES, UNUSABLE, load, main


def test_every_service_can_be_named() -> None:
    assert tuple(CLASSES) == SERVICES


def test_an_unknown_name_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quotta"]) == UNUSABLE
    said = capsys.readouterr().err
    assert said == "There is no service 'quotta': name some of catalog, quota, routing, billing, audit.\n"


def test_no_name_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == UNUSABLE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_service_that_the_image_does_not_hold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["elsewhere"], {"elsewhere": "services.elsewhere.service:Elsewhere"}) == UNUSABLE
    assert "not part of this installation" in capsys.readouterr().err


def test_what_a_present_service_lacks_is_not_mistaken_for_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    # A service whose own dependency is missing must fail loudly with that dependency's name.
    def importing(module: str) -> object:
        raise ModuleNotFoundError("No module named 'msgspec'", name="msgspec")

    monkeypatch.setattr("tokengrid.serve.importlib.import_module", importing)
    with pytest.raises(ModuleNotFoundError, match="msgspec"):
        load("quota")


def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGRID_DEADLINE_S", "-1")
    assert main(["here"], {"here": "collections:OrderedDict"}) == UNUSABLE
    assert capsys.readouterr().err.startswith("Correct the configuration: TOKENGRID_DEADLINE_S: ")


def test_an_unknown_service_is_a_refusal_for_programs_too() -> None:
    with pytest.raises(SetupFailed):
        load("quotta")
