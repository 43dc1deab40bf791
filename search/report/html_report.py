"""A report as one HTML page with text, tables and plots. It loads nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go
from markdown_it import MarkdownIt
from plotly.offline import get_plotlyjs

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 1180px;
  margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5em; overflow-wrap: anywhere; } h2 { font-size: 1.2em; margin-top: 2em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #d1d9e0; padding: 4px 8px; text-align: left; }
td { vertical-align: top; } td:last-child { min-width: 16em; }
th { background: #f6f8fa; position: sticky; top: 0; }
.plot > div { min-width: 340px; }
.many > div { min-width: 720px; }
li { overflow-wrap: anywhere; }
"""
#: Plots that are wider than the screen of a phone; they scroll sideways.
_WIDE_PLOTS = ("All settings together", "Each setting", "Load curves of the best and the reference")


def html_page(title: str, text: str, plots: Sequence[tuple[str, go.Figure]]) -> str:
    """Return the page.

    Args:
        title: title of the browser tab.
        text: Markdown; HTML in it is escaped.
        plots: shown after the text, each with its heading.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text)
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    plots_html = "".join(
        f'<h2>{html.escape(heading)}</h2><div class="wide plot'
        f'{" many" if heading in _WIDE_PLOTS else ""}">{_div(figure)}</div>'
        for heading, figure in plots
    )
    script = f"<script>{get_plotlyjs()}</script>" if plots else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>{script}</head>"
        f"<body>{body}{plots_html}</body></html>\n"
    )


def _div(figure: go.Figure) -> str:
    config = {"responsive": True, "displaylogo": False}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return text
