"""The bill as a page: complete, standing alone, and deaf to whatever hostile text says."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest

from services.billing.chart import OTHERS, colours, month_chart
from services.billing.page import KINDS, render_bill
from shared.contracts.billing import Bill, BillIssued, BillLine, CreditNoteIssued, LineKind, TokenSums
from tests.unit.billing_world import bill as any_bill
from tests.unit.billing_world import july

HOSTILE = "</style><script>alert('x')</script>{{ 7*7 }}<img src=x onerror=alert(1)>&amp;"
DATES = [f"2026-06-{day:02d}" for day in range(1, 31)]


def bill(*lines: BillLine, **fields: Any) -> Bill:
    told = {"vat_fen": 6, "calls": 3, "tokens": 12345, "debited": 2_500_000}
    return any_bill(*lines, **(told | {"quota_position": 1234, "catalog_position": 56} | fields))


USAGE = BillLine(
    kind="usage",
    text="Usage of kimi",
    fen=106,
    model="kimi",
    rate_card="sh/kimi@1",
    calls=3,
    usage=TokenSums(input=12_345),
    amount=1_234_567_000,
    charged=265_000_000,
)
DAY = {"day": "2026-06-03", "model": "kimi", "calls": 3, "amount": 1_234_567_000, "charged": 0}
DAILY = [DAY | {"usage": {"input": 12_345, "cached_input": 0, "cache_write": 0, "output": 0}}]


def page(made: Bill | None = None, daily: Any = DAILY, **more: Any) -> str:
    at = july(1, 2)
    return render_bill(
        BillIssued(at=at, recorded_at=at, bill=made or bill(USAGE), bill_sha256="ab" * 32), daily, **more
    )


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_says_what_a_bill_must_say() -> None:
    text = _Tags(page(operator_name="Shanghai Telecom")).text
    facts = ["Shanghai Telecom", "sh-telecom-2026-06-000001", "a1", "2026-06-01 to 2026-06-30", "2026-07-01"]
    facts += ["1,234,567", "265,000", "1.06", "6% included", "0.06", "position 1234", "position 56", "ab" * 32]
    assert [fact for fact in facts if fact not in text] == []


def test_payments_and_credit_notes_lead_to_what_is_due() -> None:
    at = july(2)
    note = CreditNoteIssued(
        at=at, recorded_at=at, request_id="c", number="n-C000001", bill_number="n", fen=6, reason="slow"
    )
    text = _Tags(page(credit_notes=[note], paid_fen=50)).text
    assert "¥ 0.50" in text
    assert "Credit note n-C000001 of 2026-07-02: slow" in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_line_has_its_word(kind: str) -> None:
    line = BillLine(kind=kind, text="Text of it", fen=-5, amount=-1_234_000)  # type: ignore[arg-type]
    text = _Tags(page(bill(line))).text
    assert [said for said in (KINDS[kind], "−1,234", "−0.05") if said not in text] == []


def test_a_mapping_for_every_kind_that_a_bill_may_have() -> None:
    assert set(get_args(LineKind)) <= set(KINDS)


def test_the_total_is_printed_once_however_long_the_bill() -> None:
    html = page(bill(*[USAGE] * 60))
    assert "tfoot { display: table-row-group" in html  # a footer would be printed on every page
    assert html.count("Total, CNY") == 1


def test_stands_alone() -> None:
    found = _Tags(page())
    assert found.tags.isdisjoint({"script", "link", "img", "iframe", "object", "image", "use", "a"})
    assert {value for name, value in found.attributes if "//" in value and name != "xmlns"} == set()
    assert re.findall(r"url\(|@import|<\?xml", page()) == []
    assert [name for name, _ in found.attributes if name.startswith("on")] == []


@pytest.mark.parametrize("where", ["text", "model", "plan", "rate_card", "operator_name", "account", "reason"])
def test_hostile_text_is_text(where: str) -> None:
    at = july(2)
    note = CreditNoteIssued(
        at=at,
        recorded_at=at,
        request_id="c",
        number="C1",
        bill_number="n",
        fen=6,
        reason=HOSTILE if where == "reason" else "",
    )
    fields = {where: HOSTILE} if where in ("text", "model", "plan", "rate_card") else {}
    kind = {"kind": "usage", "fen": 1} if where in ("model", "rate_card") else {"kind": "purchase", "fen": 1}
    line = BillLine(**({"text": "x"} | kind | fields))  # type: ignore[arg-type]
    made = bill(line, account=HOSTILE if where == "account" else "a1")
    daily = [DAILY[0] | {"model": HOSTILE}] if where == "model" else DAILY
    html = page(made, daily, operator_name=HOSTILE if where == "operator_name" else "", credit_notes=[note])
    found = _Tags(html)
    assert found.tags.isdisjoint({"script", "img"})
    assert HOSTILE in found.text


def test_the_same_bill_gives_the_same_page() -> None:
    assert page() == page()


def test_nothing_used_gives_no_chart() -> None:
    html = page(bill(), daily=[])
    assert "<svg" not in html
    assert "Nothing was bought or used" in html


class TestChart:
    def test_has_a_bar_for_each_day_with_usage(self) -> None:
        svg = month_chart(DATES, [("2026-06-03", "a", 5000), ("2026-06-04", "a", 5000), ("2026-06-03", "b", 1000)])
        heights = [float(h) for h in re.findall(r'<rect[^>]*height="([0-9.]+)"[^>]*class="rect', svg)]
        assert sum(height > 1 for height in heights) == 3

    def test_the_axis_is_in_one_unit(self) -> None:
        svg = month_chart(DATES, [("2026-06-03", "a", 1_400_000_000)])
        assert [label for label in ("500k", "1,000k", "1,500k") if f">{label}<" not in svg] == []

    def test_small_models_share_one_colour(self) -> None:
        days = [("2026-06-03", f"m{n}", 10_000 - n) for n in range(8)]
        found = colours(days)
        assert list(found) == ["m0", "m1", "m2", "m3", "m4", OTHERS]
        assert len(set(found.values())) == 6

    def test_a_day_on_which_more_came_back_than_was_used_has_no_bar(self) -> None:
        assert "<svg" in month_chart(DATES, [("2026-06-03", "a", -5000)])

    def test_february_and_tiny_amounts(self) -> None:
        assert "<svg" in month_chart([f"2026-02-{d:02d}" for d in range(1, 29)], [("2026-02-01", "a", 1)])


def test_the_template_is_part_of_the_package() -> None:
    import services.billing

    assert (Path(services.billing.__file__).parent / "templates" / "bill.html").is_file()
