"""The JavaScript library that draws the plots of report.html and of the service's page.

`plotly/` holds the npm package plotly.js-cartesian-dist-min as published. It draws every plot of
`plots.py` in a third of the size of the full library.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

PLOTLY = Path(__file__).with_name("plotly") / "plotly-cartesian.min.js"


@cache
def plotly_text() -> str:
    """Return the library's JavaScript; it defines the global `Plotly`."""
    return PLOTLY.read_text(encoding="utf-8")
