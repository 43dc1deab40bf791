"""Shares and rates as text. Pure."""

from __future__ import annotations


def format_percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 as a percentage: 0.95 is "95 %"."""
    return f"{100 * share:.{digits}f} %"


def format_rps(rate_rps: float) -> str:
    """Return a rate with its unit, and with three digits below 1: 0.2587 is "0.259 rps"."""
    return f"{rate_rps:.1f} rps" if rate_rps >= 1 or not rate_rps else f"{rate_rps:.3g} rps"
