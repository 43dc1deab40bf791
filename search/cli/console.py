"""The console that the commands print on."""

from __future__ import annotations

from rich.console import Console


def create_console(stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console that prints text as it is.

    Paths, URLs and error messages may contain what rich takes for markup or an emoji.
    """
    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)
