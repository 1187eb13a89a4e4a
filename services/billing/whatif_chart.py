"""The chart of a what-if: how many subscribers pay how much more or less, and what it is for each operator.

One SVG that stands alone. It must not know what a bill is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

import pygal
from pygal.style import Style

from services.billing.chart import STYLE, SVG, axis_labels, bare
from shared.units import FEN_PER_YUAN, yuan

WIDTH, HEIGHT, GAP = 960, 300, 44  # of a part, and what its heading takes
LESS, SAME, MORE = "#2a9d8f", "#9aa5b1", "#d1495b"
ACTUAL, WHAT_IF = "#9aa5b1", "#0b5cad"

Total = tuple[str, int, int]  # operator, fen in fact, fen under the other catalogue


def what_if_chart(title: str, differences: Sequence[int], totals: Sequence[Total]) -> str:
    """An SVG document. `differences`: fen, one for each subscriber."""
    parts = (
        ("Subscribers by what they would pay less or more, yuan", ((LESS, "less"), (SAME, "the same"), (MORE, "more"))),
        ("Bills by operator, yuan", ((ACTUAL, "in fact"), (WHAT_IF, "what-if"))),
    )
    charts = (_distribution(differences), _totals(totals))
    y, body = 40, [f'<text x="12" y="26" font-size="17" font-weight="bold" fill="#1d2733">{escape(title)}</text>']
    for (heading, legend), chart in zip(parts, charts, strict=True):
        body.append(f'<text x="12" y="{y + 24}" font-size="13" fill="#1d2733">{escape(heading)}</text>')
        body += [_key(WIDTH - 90 * (len(legend) - n), y + 24, *one) for n, one in enumerate(legend)]
        body.append(f'<svg x="0" y="{y + GAP - 8}" width="{WIDTH}" height="{HEIGHT}">{chart}</svg>')
        y += GAP + HEIGHT
    font = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif\""
    return (
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" {font}>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def _key(x: int, y: int, colour: str, name: str) -> str:
    return (
        f'<rect x="{x}" y="{y - 10}" width="11" height="11" fill="{colour}"/>'
        f'<text x="{x + 16}" y="{y}" font-size="12" fill="#46525e">{name}</text>'
    )


# --- by subscriber ---------------------------------------------------------------------------
def buckets(differences: Sequence[int]) -> list[tuple[int, str, int]]:
    """(sign, label, subscribers) from most saved to most lost: a bucket is a power of ten, in yuan."""
    counted = Counter(_bucket(fen) for fen in differences)
    low, high = min([0, *counted]), max([0, *counted])
    return [((n > 0) - (n < 0), _named(n), counted[n]) for n in range(low, high + 1)]


def _bucket(fen: int) -> int:
    """0 for no difference; else the number of its digits, with its sign."""
    digits = len(str(abs(fen))) if fen else 0
    return -digits if fen < 0 else digits


def _named(bucket: int) -> str:
    """From its least difference to below the next bucket's."""
    if not bucket:
        return "0"
    low, high = (_plain(10**power) for power in (abs(bucket) - 1, abs(bucket)))
    return f"{'-' if bucket < 0 else '+'}{low} to {high}"


def _plain(fen: int) -> str:
    """A power of ten as yuan, without zeros that say nothing."""
    return f"{fen // FEN_PER_YUAN:,}" if fen >= FEN_PER_YUAN else yuan(fen).rstrip("0")


def _distribution(differences: Sequence[int]) -> str:
    found = buckets(differences)
    chart = _bars(
        "subscribers", [f"{label}: {count:,}" for _, label, count in found], max(count for *_, count in found), str
    )
    colours = {-1: LESS, 0: SAME, 1: MORE}
    chart.add("", [{"value": count, "color": colours[sign]} for sign, _, count in found])
    return bare(chart.render_tree())


# --- by operator -----------------------------------------------------------------------------
def _totals(totals: Sequence[Total]) -> str:
    most = max((abs(fen) for _, *both in totals for fen in both), default=0)
    # In whole yuan where that is fine enough: an axis of odd hundredths cannot be read.
    unit = FEN_PER_YUAN if most >= FEN_PER_YUAN * 10 else 1
    show: Callable[[int], str] = (lambda n: f"{n:,}") if unit > 1 else yuan
    below = any(fen < 0 for _, *both in totals for fen in both)
    chart = _bars("operators", [name for name, *_ in totals], most // unit, show, below)
    chart.add("", [{"value": before // unit, "color": ACTUAL} for _, before, _ in totals])
    chart.add("", [{"value": after // unit, "color": WHAT_IF} for _, _, after in totals])
    return bare(chart.render_tree())


def _bars(name: str, labels: Sequence[str], most: int, show: Callable[[int], str], below: bool = False) -> pygal.Bar:
    """Up to `most`, and if `below`, as far below zero."""
    steps = axis_labels(most)
    if below:
        steps = [*(-step for step in reversed(steps[1:])), *steps]
    assert all(low < high for low, high in pairwise(steps))
    chart = pygal.Bar(
        style=Style(**STYLE),
        js=[],
        width=WIDTH,
        height=HEIGHT,
        margin=4,
        spacing=12,
        explicit_size=True,
        disable_xml_declaration=True,
        show_legend=False,
        print_values=False,
        y_labels=steps,
        range=(steps[0], steps[-1]),
        value_formatter=lambda value: show(int(value)),
        x_labels=labels,
        truncate_label=-1,
    )
    chart.uuid = f"whatif-{name}"  # random otherwise: the same what-if is the same file
    return chart
