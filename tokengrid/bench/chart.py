"""The rates as bars, an SVG that stands alone. Must not know what is measured."""

from __future__ import annotations

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


def rates(rows: Sequence[Row]) -> str:
    """Every row that is a rate, once, in order, on a logarithmic axis: they span three orders of magnitude."""
    values = {row.name: row.value for row in rows if row.unit.endswith("/s")}
    names = list(values)[::-1]  # pygal draws from the bottom up
    chart = pygal.HorizontalBar(
        style=CleanStyle(colors=("#0b5cad",), label_font_size=11, value_font_size=11, title_font_size=14),
        js=[],
        logarithmic=True,
        title="Per second, logarithmic; one run on one machine: trust the ratios",
        width=1100,
        height=MARGIN + LINE_HEIGHT * len(names),
        show_legend=False,
        print_values=True,
        print_values_position="top",
        disable_xml_declaration=True,
        truncate_label=80,
        value_formatter=lambda value: f"{value:,.0f}",
        x_labels=names,
        no_data_text="",
    )
    chart.uuid = "bench"  # random otherwise
    chart.add("", [values[name] for name in names])
    root = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
            if tag in ("", "script"):  # comments, and what is for scripts
                parent.remove(child)
    ElementTree.register_namespace("", SVG)
    return str(ElementTree.tostring(root, encoding="unicode"))
