"""`tokengrid catalog`: files checked, compared, published and imported, and what is shown of what is published."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.catalog.files import dump_catalogue, read_file
from services.catalog.sample import AS_OF, import_prices, sample_catalogue, sample_publication
from services.catalog.schemas import LISTS
from shared.contracts import catalog as c
from tests.unit.catalog_world import LAST_MONTH, NOW, World, small
from tokengrid import cli
from tokengrid.commands import catalog, catalog_compare, catalog_show
from tokengrid.commands.catalog_show import plan_terms

FAULTY = """\
models:
  - {model: m2, family: n, developer: D}
rate_cards:
  - operator: east
    model: m2
    rates: {input: 5}
    tiers:
      - {above_input_tokens: 10, rates: {input: 6}}
      - {above_input_tokens: 10, rates: {input: 7}}
  - {operator: north, model: m1, rates: {input: 1}}
deployments:
  - deployment: d2
    model: old
    data_centre: hub
    operator: west
    tokens_per_minute: 1
    concurrent_calls: 1
"""
CHANGED = """\
rate_cards:
  - {operator: east, model: m1, rates: {input: 2000, output: 3000}}
  - {operator: west, model: m1, rates: {input: 1}}
"""
TOMORROW = ("--from", "2026-06-19")
IN_LINES = [
    "line 9: rate_cards.0.tiers.1 (east/m2): tiers must ascend: 10 after 10",
    "line 10: rate_cards.1.operator (north/m1): no operator 'north' is in force then",
    "line 13: deployments.0.model (d2): the model 'old' is retired: it is not sold",
]


def let_ask(monkeypatch: pytest.MonkeyPatch, world: World) -> World:
    """The catalog's answers without a broker between; what is None is left out, as the client does."""

    def ask(service: str, method: str, **fields: Any) -> Any:
        assert service == "catalog"
        given = {name: value for name, value in fields.items() if value is not None}
        return world.app.listed(method, given) if method in LISTS else getattr(world.app, method)(given)

    @contextmanager
    def asking(*_: Any) -> Iterator[Any]:
        yield ask

    for module in (catalog, catalog_compare, catalog_show):
        monkeypatch.setattr(module, "asking", asking)
    return world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = let_ask(monkeypatch, World(tmp_path / "var"))
    world.publish(LAST_MONTH.replace("00:00", "16:00"), **small())
    monkeypatch.chdir(tmp_path)
    Path("faulty.yaml").write_text(FAULTY)
    Path("changed.yaml").write_text(CHANGED)
    yield world
    world.app.close()


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The sample, published once."""
    world = World(tmp_path_factory.mktemp("var"))
    world.app.publish(sample_publication(NOW))
    yield world
    world.app.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, and what came out on either way; of tables the words alone."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["catalog", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


Run = Callable[..., tuple[int, str, str]]


def cells(shown: str) -> list[list[str]]:
    """The rows of all tables, cell by cell."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line[:1] == "│"]


# --- files ------------------------------------------------------------------------------------------
def test_a_file_by_itself_is_checked_without_any_service(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("faulty.yaml").write_text(FAULTY)
    assert run("validate", "faulty.yaml") == (1, "", f"faulty.yaml is no catalogue:\n  {IN_LINES[0]}.\n")
    Path("changed.yaml").write_text(CHANGED)
    assert run("validate", "changed.yaml") == (0, "changed.yaml: 2 items, nothing wrong by itself.\n", "")
    for text, lines in (("models: [1\n", [2]), ("plans:\n- nonsense: 1\n  fee_fen: x\n", [2, 2, 2, 2, 2, 3])):
        Path("unreadable.yaml").write_text(text)
        code, shown, _ = run("validate", "unreadable.yaml", "--json")
        assert (code, [fault["line"] for fault in json.loads(shown)["faults"]]) == (1, lines)


def test_what_cannot_be_read_is_told_to_programs_too(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "unreadable.yaml"
    file.write_text("models:\n- {model: m1, family: M, developer: D}\n")
    code, shown, told = run("validate", str(file), "--json")
    (fault,) = json.loads(shown)["faults"]
    assert (code, fault["line"], fault["path"], told) == (1, 2, "models.0.family", "")


def test_against_what_is_published_every_error_is_told_at_once_with_its_line(world: World, run: Run) -> None:
    code, _, told = run("validate", "faulty.yaml", "--against", "demo", *TOMORROW)
    assert (code, told.rstrip(".\n").split("\n  ")[1:]) == (1, IN_LINES)
    code, shown, _ = run("validate", "faulty.yaml", "--against", "demo", "--json", *TOMORROW)
    assert (code, [fault["line"] for fault in json.loads(shown)["faults"]]) == (1, [9, 10, 13])
    assert run("validate", "changed.yaml", "--against", "demo", *TOMORROW)[0] == 0
    assert world.app.log.head() == 10


def test_comparing_a_file_shows_each_field_before_and_after(world: World, run: Run) -> None:
    code, shown, _ = run("compare", "changed.yaml", *TOMORROW)
    assert code == 0
    assert ["rate card", "west/m1"] in cells(shown)
    assert ["rate card", "east/m1", "rates.input", "1,000", "→ 2,000"] in cells(shown)
    assert shown.endswith("1 new (1 rate card), 1 changed (1 rate card), 0 unchanged.\n")
    found = json.loads(run("compare", "changed.yaml", "--json", *TOMORROW)[1])
    assert found["changed"][0]["fields"] == {"rates.input": [1000, 2000]}
    assert world.app.log.head() == 10


def test_publishing_twice_changes_once(world: World, run: Run) -> None:
    code, shown, _ = run("publish", "changed.yaml", *TOMORROW)
    assert code == 0
    assert "2 items published, 0 held already; in force from 2026-06-19 00:00:00 in Shanghai." in shown
    assert "Against what held: 1 new (1 rate card), 1 changed (1 rate card), 0 unchanged." in shown
    code, shown, _ = run("publish", "changed.yaml", *TOMORROW)
    assert (code, world.app.log.head()) == (0, 12)
    assert "Against what held: 0 new, 0 changed, 2 unchanged." in shown


def test_a_refused_publication_tells_every_reason_with_its_line(world: World, run: Run) -> None:
    Path("faulty.yaml").write_text(
        FAULTY.replace("above_input_tokens: 10, rates: {input: 7}", "above_input_tokens: 11, rates: {}")
    )
    code, shown, told = run("publish", "faulty.yaml", *TOMORROW)
    assert (code, shown, world.app.log.head()) == (1, "", 10)
    assert told == "\n  ".join(["faulty.yaml cannot be published:", *IN_LINES[1:]]) + ".\n"


def test_reasons_that_came_between_looking_and_publishing_are_told(world: World, run: Run, monkeypatch) -> None:
    publish = world.app.publish

    def overtaken(fields: Any) -> Any:
        monkeypatch.setattr(world.app, "publish", publish)
        world.publish(TOMORROW[1] + "T00:00:00+08:00", models=[small()["models"][0] | {"status": "retired"}])
        return publish(fields)

    monkeypatch.setattr(world.app, "publish", overtaken)
    code, shown, told = run("publish", "changed.yaml", *TOMORROW)
    assert (code, shown, len(told.splitlines())) == (1, "", 3)
    assert "line 2: rate_cards.0.model (east/m1): the model 'm1' is retired: it is not sold" in told


def test_a_request_that_was_answered_is_answered_again(world: World, run: Run) -> None:
    first = json.loads(run("publish", "changed.yaml", *TOMORROW, "--request-id", "once", "--json")[1])
    world.clock.advance(3 * 86_400)
    Path("dearer.yaml").write_text(CHANGED.replace("2000", "9000"))
    assert run("publish", "dearer.yaml", "--from", "2026-06-22")[0] == 0
    code, shown, _ = run("publish", "changed.yaml", *TOMORROW, "--request-id", "once", "--json")
    assert (code, json.loads(shown)) == (0, first | {"replayed": True})


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare"],
        ["compare", "--at", "2026-06-01"],
        ["compare", "changed.yaml", "--at", "2026-06-01"],
        ["compare", "--at", "june", "--with", "2026-06-01"],
        ["show", "--at", "0001-01-01"],
        ["show", "regions", "--operator", "east"],
        ["import", "--as-of", "june"],
    ],
)
def test_what_is_asked_wrongly(world: World, run: Run, arguments: list[str]) -> None:
    code, shown, told = run(*arguments)
    assert (code, shown, len(told.splitlines())) == (2, "", 1)


def test_a_summary_counts_by_kind() -> None:
    named = [{"kind": kind} for kind in ("policy", "policy", "data_centre", "plan")]
    found = {"new": named, "changed": [], "unchanged": 7}
    assert catalog_compare.summary(found) == "4 new (2 policies, 1 data centre, 1 plan), 0 changed, 7 unchanged"


# --- both times ---------------------------------------------------------------------------------------
def test_two_instants_are_compared(world: World, run: Run) -> None:
    world.clock.advance(60)
    run("publish", "changed.yaml", *TOMORROW)
    code, shown, _ = run("compare", "--at", "2026-06-18T10:00:00", "--with", "2026-06-20")
    assert (code, shown.splitlines()[-1]) == (0, "1 new (1 rate card), 0 gone, 1 changed (1 rate card), 9 unchanged.")
    known = ("--known-at", NOW.isoformat())
    assert "0 new, 0 gone, 0 changed" in run("compare", "--at", "2026-06-18", "--with", "2026-06-20", *known)[1]


def test_what_held_is_shown_as_it_was_known(world: World, run: Run) -> None:
    world.clock.advance(60)
    run("publish", "changed.yaml", *TOMORROW)

    def rate(*when: str) -> str:
        return cells(run("show", "rates", "--operator", "east", *when)[1])[0][2]

    assert rate("--at", "2026-06-20") == "2000"
    assert rate("--at", "2026-06-18T12:00:00") == "1000"
    assert rate("--at", "2026-06-20", "--known-at", NOW.isoformat()) == "1000"


def test_the_history_of_a_thing_says_what_each_version_changed(world: World, run: Run) -> None:
    run("publish", "changed.yaml", *TOMORROW)
    _, shown, _ = run("history", "rates", "east/m1")
    first, second = cells(shown)
    assert (first[0], first[3]) == ("1", "first version")
    assert second == ["2", "2026-06-19 00:00:00", "2026-06-18 09:30:00", "rates.input 1,000 → 2,000"]
    assert len(json.loads(run("history", "rates", "east/m1", "--json")[1])) == 2
    assert "none" in run("history", "plans", "east/nothing")[1]


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("models", 39),
        ("rates", 117),
        ("plans", len(sample_catalogue().plans)),
        ("tariffs", 18),
        ("operators", 3),
        ("regions", 9),
        ("data-centres", 8),
        ("deployments", 147),
        ("policies", 3),
    ],
)
def test_every_kind_is_shown(listed: World, monkeypatch, run: Run, kind: str, count: int) -> None:
    let_ask(monkeypatch, listed)
    code, shown, _ = run("show", kind)
    named = [row for row in cells(shown) if row[-1] == "1"]
    assert (code, len(named)) == (0, count)
    key = json.loads(run("show", kind, "--json")[1])[0]["key"]
    assert len(json.loads(run("history", kind, key, "--json")[1])) == 1


def test_the_terms_of_a_plan_are_told_in_words() -> None:
    plan = msgspec.convert(
        {
            "operator": "o", "plan": "p", "name": "P", "kind": "monthly", "fee_fen": 2000, "allowance": 9_000,
            "phases": [{"months": 1, "name": "hello", "fee_fen": 100, "allowance": 5_000}, {"months": 2}],
            "cycle": "anniversary", "rollover": "limited", "rollover_max": 7_000, "overage": "payg",
            "discount_percent": 20, "usage_discount_percent": 15, "cap_fen": 900, "commitment_fen": 300,
        },
        c.Plan,
    )  # fmt: skip
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    fields["phases"] = [{name: getattr(phase, name) for name in phase.__struct_fields__} for phase in plan.phases]
    assert plan_terms(fields).split("; ") == [
        "first 1 month (hello) 1.00 yuan for 5 points",
        "first 2 months 0.00 yuan for 0 points",
        "20 % off the fee",
        "months from the day it was taken",
        "at most 7 points roll over",
        "as you go 250,000 points a yuan",
        "15 % off usage",
        "at least 3.00 yuan a month",
        "at most 9.00 yuan a month",
    ]


# --- imports ------------------------------------------------------------------------------------------
def test_an_import_is_a_file_that_says_where_it_came_from(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, _ = run("import", "--as-of", "2026-11-01", "--out", "prices.yaml")
    assert (code, shown) == (
        0,
        "prices.yaml: 117 rate cards of 39 models, 0 without a price; genai-prices 0.2.3 as of 2026-11-01.\n",
    )
    read = read_file("prices.yaml")
    assert read.catalogue.rate_cards == sample_catalogue().rate_cards
    assert read.imported is not None
    assert (read.imported.package_version, read.imported.as_of, read.imported.priced) == ("0.2.3", AS_OF, 39)


def test_imports_are_compared_before_they_are_published(listed: World, monkeypatch, run: Run, tmp_path: Path) -> None:
    let_ask(monkeypatch, listed)
    monkeypatch.chdir(tmp_path)
    catalogue, imported = import_prices(AS_OF)
    # The next import: one price has gone up, one model can no longer be priced, one never could.
    dearer = msgspec.structs.replace(
        catalogue.rate_cards[0], rates=msgspec.structs.replace(catalogue.rate_cards[0].rates, input=1234)
    )
    kept = catalogue.rate_cards[1:4]
    lost = {"a-ghost": "nobody has a-ghost", "glm-5": "zhipuai has no glm-5"}
    text = dump_catalogue(
        c.Catalogue(rate_cards=(dearer, *kept)),
        msgspec.structs.replace(imported, content_sha256="other", priced=4, unpriced=lost),
    )
    Path("next.yaml").write_text(text)
    code, shown, _ = run("compare", "next.yaml", *TOMORROW)
    assert code == 0
    assert ["rate card", dearer.key, "rates.input", "1,000", "→ 1,234"] in cells(shown)
    assert [row for row in cells(shown) if row[0] in lost] == [
        ["glm-5", "zhipuai has no glm-5", "NEW: its rates in force stay as they are"],
        ["a-ghost", "nobody has a-ghost", ""],
    ]
    assert "1 changed (1 rate card), 3 unchanged." in shown
    assert run("publish", "next.yaml", *TOMORROW)[0] == 0
    recorded = listed.app.imports({})[-1]
    assert (recorded["content_sha256"], recorded["unpriced"]) == ("other", ["a-ghost", "glm-5"])
    # Known by now, it no longer stands out.
    assert "NEW" not in run("compare", "next.yaml", *TOMORROW)[1]


def test_other_sources_alone_are_told_by_their_number(listed: World, monkeypatch, run: Run, tmp_path: Path) -> None:
    let_ask(monkeypatch, listed)
    monkeypatch.chdir(tmp_path)
    card = msgspec.structs.replace(sample_catalogue().rate_cards[5], source="another day")
    Path("same.yaml").write_text(dump_catalogue(c.Catalogue(rate_cards=(card,))))
    _, shown, _ = run("compare", "same.yaml", *TOMORROW)
    assert shown.splitlines() == [
        "0 new, 1 changed (1 rate card), 0 unchanged.",
        "Of what is changed, only the source differs in 1.",
    ]
