"""The rates as bars, an SVG that stands alone. Must not know what is measured."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from xml.etree import ElementTree

import pygal
from pygal.style import CleanStyle

from tokengrid.bench.measure import Row

# pygal leaves an import hook for its maps, of a kind that Python warns of at every later import.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

SVG = "http://www.w3.org/2000/svg"
LINE_HEIGHT, MARGIN = 24, 90
PLAIN, MET, MISSED = "#0b5cad", "#2e7d32", "#c62828"


def rates(rows: Sequence[Row]) -> str:
    """Every row that is a rate, once, in order, on a logarithmic axis: they span three orders of magnitude.

    A rate that has goals is green where all of them are met, else red.
    """
    values = {row.name: row.value for row in rows if row.unit.endswith("/s")}
    colors = {row.name: MET for row in rows if row.met} | {row.name: MISSED for row in rows if row.met is False}
    names = list(values)[::-1]  # pygal draws from the bottom up
    lowest, highest = (math.log10(pick(values.values(), default=1.0)) for pick in (min, max))
    decades = [10**n for n in range(math.floor(lowest), max(math.ceil(highest), math.floor(lowest) + 1) + 1)]
    chart = pygal.HorizontalBar(
        style=CleanStyle(colors=(PLAIN,), label_font_size=11, value_font_size=11, title_font_size=14),
        js=[],
        logarithmic=True,
        title="Per second, logarithmic; green: goals met, red: missed. One run on one machine: trust the ratios",
        width=1100,
        height=MARGIN + LINE_HEIGHT * len(names),
        show_legend=False,
        range=(decades[0], decades[-1]),
        zero=decades[0],
        y_labels=decades,
        disable_xml_declaration=True,
        truncate_label=120,
        value_formatter=lambda value: f"{value:,.0f}",
        x_labels=[f"{name}: {values[name]:,.0f}" for name in names],
        no_data_text="",
    )
    chart.uuid = "bench"  # random otherwise
    chart.add("", [{"value": values[name], "color": colors.get(name, PLAIN)} for name in names])
    root = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
            if tag in ("", "script"):  # comments, and what is for scripts
                parent.remove(child)
    ElementTree.register_namespace("", SVG)
    return str(ElementTree.tostring(root, encoding="unicode"))
