"""The chart of a month: points per day, stacked by model, as an SVG that stands alone in a page.

No script, no stylesheet or font from elsewhere, no comment: what is drawn is all there is. Must not know
what a bill is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import pygal
from pygal.style import Style

from shared.units import MILLIPOINTS_PER_POINT

# pygal leaves an import hook for its maps, of a kind that Python warns of at every later import.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

MODELS_SHOWN = 5  # more colours than this cannot be told apart
OTHERS = "other models"
PALETTE = ("#0b5cad", "#2a9d8f", "#e9a23b", "#7a5195", "#d1495b", "#9aa5b1")
SVG = "http://www.w3.org/2000/svg"
STEPS = (1, 2, 5)

STYLE = {
    "background": "transparent",
    "plot_background": "transparent",
    "foreground": "#46525e",
    "foreground_strong": "#1d2733",
    "foreground_subtle": "#dfe5ea",
    "guide_stroke_color": "#dfe5ea",
    "guide_stroke_dasharray": "0",
    "major_guide_stroke_dasharray": "0",
    "major_guide_stroke_color": "#dfe5ea",
    "opacity": "1",
    "opacity_hover": "1",
    "font_family": "inherit",
    "label_font_size": 11,
    "major_label_font_size": 11,
    "legend_font_size": 12,
}

Day = tuple[str, str, int]  # day (`YYYY-MM-DD`), model, millipoints


def colours(days: Sequence[Day]) -> dict[str, str]:
    """The colour of each model that has a stack of its own, biggest first; others share `OTHERS`'s."""
    models = _biggest(days)
    shown = dict(zip(models, PALETTE, strict=False))
    return shown | {OTHERS: PALETTE[MODELS_SHOWN]}


def month_chart(dates: Sequence[str], days: Sequence[Day]) -> str:
    """An `<svg>` element: for each of `dates` a bar of whole points, stacked by model."""
    amounts: dict[str, Counter[str]] = {}
    shown = _biggest(days)
    for day, model, amount in days:
        amounts.setdefault(model if model in shown else OTHERS, Counter())[day] += amount
    names = [name for name in (*shown, OTHERS) if name in amounts]
    height = max((sum(amounts[name][day] for name in names if amounts[name][day] > 0) for day in dates), default=0)
    top = height // MILLIPOINTS_PER_POINT
    labels = axis_labels(top)
    chart = pygal.StackedBar(
        style=Style(**STYLE, colors=tuple(colours(days)[name] for name in names)),
        js=[],
        width=960,
        height=230,
        margin=4,
        spacing=8,
        explicit_size=False,
        disable_xml_declaration=True,
        show_legend=False,  # the page's table of models is the legend
        print_values=False,
        y_labels=labels,
        range=(0, labels[-1]),
        value_formatter=_short(labels[1]),
        x_labels=[date[-2:].lstrip("0") for date in dates],
        no_data_text="",
    )
    chart.uuid = "month"  # random otherwise; a page has one chart, and the same bill the same page
    for name in names:
        chart.add(name, [max(0, amounts[name][date]) // MILLIPOINTS_PER_POINT for date in dates])
    return bare(chart.render_tree())


def _biggest(days: Sequence[Day]) -> list[str]:
    totals: Counter[str] = Counter()
    for _, model, amount in days:
        totals[model] += amount
    return sorted(totals, key=lambda model: (-totals[model], model))[:MODELS_SHOWN]


def axis_labels(top: int) -> list[int]:
    """About four round steps up to or just above `top`."""
    if top <= 0:
        return [0, 1]
    scale = 1
    while True:
        for step in STEPS:
            if step * scale * 5 >= top:
                step *= scale
                return list(range(0, (top + step - 1) // step * step + 1, step))
        scale *= 10


def _short(step: int) -> Callable[[float], str]:
    """Points for an axis, all in the unit that its steps are whole numbers of: `2,500`, `40k`, `12M`."""
    units = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"), (1, ""))
    size, letter = next((size, letter) for size, letter in units if step % size == 0)
    return lambda points: f"{int(points) // size:,}{letter if points else ''}"


def bare(root: ElementTree.Element) -> str:
    """Without what pygal puts in for its scripts: they are not there."""
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag if isinstance(child.tag, str) else ""
            name = tag.rpartition("}")[2]
            classes = child.get("class", "").split()
            if not tag or name in ("script", "desc", "title") or "tooltip" in classes or "value" in classes:
                parent.remove(child)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")
