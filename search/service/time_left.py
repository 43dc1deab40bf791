"""How long a job may still take. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from search.trial.result import TrialResult


def expected_left_s(
    results: Sequence[TrialResult],
    search: Mapping[str, Any],
    confirm: Mapping[str, Any],
    elapsed_s: float,
    is_confirming: bool = False,
) -> float | None:
    """Return the seconds within which a search is expected to end; None if nothing limits it yet.

    The time budget is one limit. The other is the number of trials, at the mean duration so far,
    with the time limit of the confirmation.

    Args:
        search, confirm: the sections of the specification with these names.
        elapsed_s: duration of the job so far.
        is_confirming: whether no other trial will start.
    """
    limits_s = []
    if (budget_s := search.get("time_budget_s")) is not None:
        limits_s.append(budget_s - elapsed_s)
    if results and search.get("trials") and not is_confirming:
        trials_left = search["trials"] - len(results)
        confirmation_s = confirm.get("time_limit_s", 0.0) if confirm.get("rounds") else 0.0
        limits_s.append(trials_left * mean(r.duration_s for r in results) + confirmation_s)
    return max(min(limits_s), 0.0) if limits_s else None
