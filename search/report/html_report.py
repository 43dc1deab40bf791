"""A report as one HTML page with text, tables and plots. It loads nothing from elsewhere.

It follows the system's light or dark scheme, and is printed light.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from markdown_it import MarkdownIt

from search.report.plotly_library import plotly_text
from search.report.sections import Part, Plot

_FOLDER = Path(__file__).parent
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
    body = "".join(
        _plot_place(part.name, figures[part.name])
        if isinstance(part, Plot)
        else _scrolling_tables(markdown.render(part))
        for part in parts
        if not isinstance(part, Plot) or part.name in figures
    )
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


def _plot_place(name: str, figure: go.Figure) -> str:
    heading = html.escape(str(figure.layout.meta["heading"]), quote=True)
    height = figure.layout.height or 400
    return (
        f'<figure><figcaption>{heading}</figcaption><div class="plot" role="img" '
        f'aria-label="{heading}" data-figure="{html.escape(name, quote=True)}" '
        f'style="height:{height:.0f}px"></div></figure>'
    )


def _scrolling_tables(text: str) -> str:
    """Wrap each table, so that a wide one scrolls and not the page."""
    return text.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _json_in_html(data: Mapping[str, object]) -> str:
    """Return JSON that cannot end the element that it is in."""
    from plotly.utils import PlotlyJSONEncoder

    text = json.dumps(data, cls=PlotlyJSONEncoder, separators=(",", ":"))
    return text.replace("<", "\\u003c")
