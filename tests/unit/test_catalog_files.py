"""A catalogue as a YAML file: every mistake at once, each with its line; and nothing that YAML is known to do wrong."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.catalog.files import (
    FILE_MAX_BYTES,
    Imported,
    dump_catalogue,
    load_catalogue,
    parse_catalogue,
    read_text,
)
from services.catalog.sample import sample_catalogue
from shared.contracts import catalog as c
from shared.errors import MalformedCommand

BROKEN = """\
operators:
  - operator: East
    name: East
    home_region: coast
models:
  - {model: m1, family: m}
  - model: m2
    family: m
    developer: D
    contxt_tokens: 5
rate_cards:
  - operator: east
    model: m1
    rates:
      input: 1.5
      output: -3
plans:
  - operator: east
    plan: p
    name: P
    name: Q
    kind: gift
"""

CONTRADICTORY = """\
rate_cards:
  - operator: east
    model: m1
    rates: {input: 5}
    tiers:
      - {above_input_tokens: 10, rates: {input: 6}}
      - {above_input_tokens: 10, rates: {input: 7}}
  - operator: east
    model: m1
    rates: {input: 6}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(MalformedCommand) as refusal:
        parse_catalogue(text, "x.yaml")
    found: list[str] = refusal.value.details["faults"]
    assert str(refusal.value) == "\n  ".join(["x.yaml is no catalogue:", *found])
    return found


def test_every_mistake_is_named_with_its_line() -> None:
    found = faults(BROKEN)
    assert [fault.split(": ")[:2] for fault in found] == [
        ["line 2", "operators.0.operator"],
        ["line 6", "models.0.developer"],
        ["line 10", "models.1.contxt_tokens"],
        ["line 15", "rate_cards.0.rates.input"],
        ["line 16", "rate_cards.0.rates.output"],
        ["line 21", "plans.0.name"],
        ["line 22", "plans.0.kind"],
    ]
    assert "stands twice: first in line 20" in found[5]


def test_contradictions_are_named_with_their_lines() -> None:
    assert faults(CONTRADICTORY) == [
        "line 7: rate_cards.0.tiers.1 (east/m1): tiers must ascend: 10 after 10",
        "line 8: rate_cards.1 (east/m1): stands twice: also at rate_cards.0",
    ]


def test_what_cannot_be_read_hides_no_contradiction_elsewhere() -> None:
    unreadable = "  - operator: east\n    model: m0\n    rates: {input: -1}\n"
    assert faults(CONTRADICTORY.replace("rate_cards:\n", f"rate_cards:\n{unreadable}"))[1:] == [
        "line 10: rate_cards.1.tiers.1 (east/m1): tiers must ascend: 10 after 10",
        "line 11: rate_cards.2 (east/m1): stands twice: also at rate_cards.1",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("models: [", "line "),
        ("models:\n  - a: b\n c: d", "line 3: "),
        ("- models", "line 1: must be an object"),
        ("models: []\nmodels: []\n", "line 2: models: stands twice: first in line 1"),
        ("models: &m []\nplans: *m\n", "line 1: plans: aliases (`*name`) are not read: write it out"),
        (
            "models: !!python/tuple []\n",
            "line 1: models: the tag 'tag:yaml.org,2002:python/tuple' is not read",
        ),
        ("models: !!python/name:os.getcwd x\n", "line 1: models: could not determine a constructor"),
        ("? [a]\n: b\n", "line 1: a name must be plain text"),
        ("models: []\n---\nplans: []\n", "line 2: but found another document"),
        ("models: " + "[" * 100 + "]" * 100, "line 1: is nested deeper than 20"),
        ("models: 2026-13-45\n", "line 1: models: month must be in 1..12"),
        ("models: !!seq x\n", "line 1: models: the tag 'tag:yaml.org,2002:seq' is not read"),
        (
            "models:\n- {model: m, family: m,\n   developer: !!binary aGVsbG8=}\n",
            "line 3: models.0.developer: the tag 'tag:yaml.org,2002:binary' is not read",
        ),
        ("models: !!bool maybe\n", "line 1: models: is not what its tag 'tag:yaml.org,2002:bool' says"),
        ("models: !!timestamp x\n", "line 1: models: is not what its tag 'tag:yaml.org,2002:timestamp' says"),
        ('models: !!int ""\n', "line 1: models: is not what its tag 'tag:yaml.org,2002:int' says"),
        ("models: 0100\n", "line 1: models: 0100: YAML reads a leading zero as octal"),
        ("models: 19:50\n", "line 1: models: 19:50: YAML reads a leading zero as octal and a colon as base 60"),
        (f"models: 1{':1' * 300_000}\n", "line 1: models: 1:1:1:"),  # takes hours as a number
        ("# é\nmodels:\n- '\a'\n", "line 3: unacceptable character #x0007: "),
    ],
)
def test_what_is_no_catalogue(text: str, fault: str) -> None:
    assert faults(text)[0].startswith(fault)


def test_a_name_with_half_a_character_is_refused() -> None:
    assert faults('"\\ud800": 1\n')[0].startswith("line 1: ")


def test_a_list_without_end_is_refused_as_one() -> None:
    part = "{from_minute: 0, to_minute: 60, rates: {input: 1}}"
    text = f"rate_cards:\n- {{operator: e, model: m, rates: {{input: 5}}, off_peak: [{', '.join([part] * 101)}]}}\n"
    assert faults(text) == ["line 2: rate_cards.0.off_peak (e/m): has 101 entries, more than 100"]


def test_a_name_that_stands_twice_hides_no_other_mistake() -> None:
    assert [
        fault.partition(": ")[0] for fault in faults("models: [{model: M1, family: m, developer: D}]\nmodels: []")
    ] == [
        "line 1",
        "line 2",
    ]


def test_mistakes_beyond_the_first_hundred_are_counted() -> None:
    assert faults("models:\n" + "- {model: M1, family: m, developer: D}\n" * 150)[100:] == ["and 50 more"]


def test_an_empty_file_is_an_empty_catalogue() -> None:
    assert parse_catalogue("# nothing yet\n") == c.Catalogue()


def test_what_is_written_is_read_back_equal() -> None:
    assert parse_catalogue(dump_catalogue(sample_catalogue())) == sample_catalogue()


def test_where_rates_came_from_stands_beside_them() -> None:
    imported = Imported(
        package="p",
        package_version="1",
        content_sha256="ab",
        as_of=datetime(2026, 11, 1, 12, tzinfo=UTC),
        fen_per_usd=712,
        priced=1,
        unpriced={"m2": "nobody has m2", "m1": "has no input price"},
    )
    catalogue = c.Catalogue(models=(c.Model(model="m1", family="m", developer="D"),))
    read = read_text(dump_catalogue(catalogue, imported))
    assert (read.catalogue, read.imported, read.faults) == (catalogue, imported, ())
    assert imported.recorded().unpriced == ("m1", "m2")
    assert read_text("models: []").imported is None
    assert [fault.partition(":")[0] for fault in faults("imported:\n  package: p\n  priced: many\n")] == [
        *["line 1"] * 4,  # what is missing
        "line 3",
    ]


def test_a_reason_from_elsewhere_finds_its_line() -> None:
    read = read_text(CONTRADICTORY.replace("input: 7", "input: 9"))
    assert read.document.fault("rate_cards.0.tiers.1", "east/m1", "why") == (7, "rate_cards.0.tiers.1 (east/m1)", "why")
    assert read.document.fault("rate_cards.1.model", "east/m1", "why").line == 9
    # What is not written there stands where its item does.
    assert read.document.fault("rate_cards.1.tiers.4", "east/m1", "why").line == 8


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
@example("\x85")
def test_any_text_survives(name: str) -> None:
    catalogue = c.Catalogue(operators=(c.Operator(operator="east", name=name, home_region="no"),))
    assert parse_catalogue(dump_catalogue(catalogue)) == catalogue


@given(st.text(alphabet="ab:-[]{}*&!?|>'\"%#\n\t ,0", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(MalformedCommand):
        parse_catalogue(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MalformedCommand, match="cannot be read: No such file"):
        load_catalogue(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"models:\n- \xff\xfe\xfa")
    with pytest.raises(MalformedCommand, match="line 2: is not UTF-8 text"):
        load_catalogue(binary)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (FILE_MAX_BYTES + 1))
    with pytest.raises(MalformedCommand, match="larger than"):
        load_catalogue(large)
    with pytest.raises(MalformedCommand, match="larger than"):
        load_catalogue("/dev/zero")
