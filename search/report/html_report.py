"""A report as one HTML page with text, tables and plots. It loads nothing from elsewhere.

It follows the system's light or dark scheme, and is printed light.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from markdown_it import MarkdownIt

from search.report.plotly_library import plotly_text
from search.report.sections import Part, Plot

_FOLDER = Path(__file__).parent
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_SLASH = re.compile(r"(?<=[\w-])/(?=\w)")
_INTERVAL = re.compile(r"[\d.,]+ \([\d.,]+ to [\d.,]+\)")
#: The class of a table by its number of columns: as wide as its content, or as the page.
_WIDE_TABLES = ((11, "many"), (7, "full"))
_STYLE, _SCRIPT = _FOLDER / "report.css", _FOLDER / "report.js"


def html_page(title: str, parts: Sequence[Part], figures: Mapping[str, go.Figure]) -> str:
    """Return the page.

    Args:
        title: title of the browser tab.
        parts: Markdown, in which HTML is escaped, and the places of plots.
        figures: by the name of their place; a place without a figure stays empty.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    shown = [part.name for part in parts if isinstance(part, Plot) and part.name in figures]
    body, heading = "", ""
    for part in parts:
        if isinstance(part, str):
            heading = part.removeprefix("## ") if part.startswith("## ") else heading
            body += _polished(markdown.render(part))
        elif part.name in figures:
            body += _plot_place(part.name, figures[part.name], heading)
    scripts = ""
    if shown:
        data = {name: figures[name].to_plotly_json() for name in shown}
        scripts = (
            f"<script>{plotly_text()}</script>"
            f'<script id="figures" type="application/json">{_json_in_html(data)}</script>'
            f"<script>{_SCRIPT.read_text(encoding='utf-8')}</script>"
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><main>{body}</main>{scripts}</body></html>\n"
    )


def _plot_place(name: str, figure: go.Figure, heading: str) -> str:
    """Return the place of a plot, with a caption unless that is the heading above it."""
    label = html.escape(str(figure.layout.meta["heading"]), quote=True)
    caption = f"<figcaption>{label}</figcaption>" if label != heading else ""
    height = figure.layout.height or 400
    # Several plots side by side are wider than the screen of a phone; they scroll.
    many = " many" if "xaxis2" in figure.layout.to_plotly_json() else ""
    return (
        f'<figure>{caption}<div class="wide"><div class="plot{many}" role="img" '
        f'aria-label="{label}" data-figure="{html.escape(name, quote=True)}" '
        f'style="height:{height:.0f}px"></div></div></figure>'
    )


def _polished(text: str) -> str:
    """Wrap each table, so that a wide one scrolls and not the page; keep units at their numbers."""
    text = re.sub(r"(?<=\d) (?=(?:%|s|ms|MiB)\b|%)", "\u00a0", text)
    return _TABLE.sub(_scrolling, text)


def _scrolling(table: re.Match[str]) -> str:
    columns = table[0].count("<th>") + table[0].count("<th ")
    kind = next((f' class="{name}"' for least, name in _WIDE_TABLES if columns >= least), "")
    rows = table[0].removeprefix("<table>")
    if kind:  # A narrow table needs every place to break a line.
        rows = _INTERVAL.sub(lambda match: match[0].replace(" ", "\u00a0"), rows)
        head, body = rows.split("</thead>")
        rows = f"{_SLASH.sub('/<wbr>', head)}</thead>{body}"
    return f'<div class="wide"><table{kind}>{rows}</div>'


def _json_in_html(data: Mapping[str, object]) -> str:
    """Return JSON that cannot end the element that it is in."""
    from plotly.utils import PlotlyJSONEncoder

    text = json.dumps(data, cls=PlotlyJSONEncoder, separators=(",", ":"))
    return text.replace("<", "\\u003c")
