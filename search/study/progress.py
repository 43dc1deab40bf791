"""What a run tries, why, and what is known so far, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.spec.space import Space
from search.trial.objective import Objective
from search.trial.ranking import RATE, best_of, rate_of, reference_of
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult

#: Workers count as busy from this share of them.
_BUSY = 0.8
#: Maximum number of changed settings that are named.
_NAMED = 3
#: Nouns of the settings, and of a greater and a smaller value.
_NOUNS = {
    "workers": ("workers", "more", "fewer"),
    "batch_size": ("batches", "larger", "smaller"),
    "max_batch_delay_ms": ("batch delay", "a longer", "a shorter"),
    "netty_threads": ("netty threads", "more", "fewer"),
    "netty_client_threads": ("netty client threads", "more", "fewer"),
    "mkl_threads": ("threads in each worker", "more", "fewer"),
}
_FRONT_END = {"netty_threads", "netty_client_threads"}
_REASONS = {
    TrialOrigin.DEFAULT: "measuring TorchServe's default, with which the others are compared",
    TrialOrigin.BASELINE: "measuring the baseline, with which the others are compared",
    TrialOrigin.WARM_START: "trying one of the best configurations of an earlier run",
    TrialOrigin.GUIDE: "trying a starting point of TorchServe's performance guide",
    TrialOrigin.INCUMBENT: "measuring the best configuration again, to check its rate",
    TrialOrigin.CONFIRMATION: "measuring the best configurations again, in fresh servers",
    TrialOrigin.SWEEP: "measuring a point of the sweep",
}


@dataclass(frozen=True)
class Progress:
    """The state of a run when a measurement begins.

    Attributes:
        trying: what is measured, and why.
        so_far: the best rate so far, compared with the reference; None without one.
        left_s: seconds until the expected end of the run; None if unknown.
        improvement_probability: that an untried configuration is better, by more than
            `WORTHWHILE` of the objective; None as long as starting points remain, in a sweep, and
            in the confirmation.
    """

    trying: str
    so_far: str | None = None
    left_s: float | None = None
    improvement_probability: float | None = None


def so_far(results: list[TrialResult], objective: Objective = RATE) -> str | None:
    """Return the best configuration's rate so far beside the reference's; None without a rate.

    >>> so_far([]) is None
    True
    """
    best, reference = best_of(results, objective), reference_of(results)
    rate = rate_of(results, best.config) if best else None
    if best is None or not rate:
        return None
    text = f"{_figure(rate)} rps"
    if reference is None or not reference.sustained_rps or best.config == reference.config:
        return text
    ratio = rate / reference.sustained_rps
    name = "default" if reference.origin is TrialOrigin.DEFAULT else "baseline"
    return f"{text}, {_figure(ratio)} times the {name}"


def trying(
    request: TrialRequest,
    results: Sequence[TrialResult],
    space: Space,
    objective: Objective = RATE,
) -> str:
    """Return what a trial tries, and why.

    A sampled configuration is compared with the best so far.
    """
    if request.origin is not TrialOrigin.SAMPLED:
        return _REASONS[request.origin]
    best = best_of(list(results), objective)
    if best is None:
        return "trying another configuration, since none has served so far"
    before = {**space.defaults, **best.config.to_dict()}
    now = {**space.defaults, **request.config.to_dict()}
    changed = _changes(before, now)
    if not changed:
        return "trying other settings of other models"
    reason = _limit_of(best, set(changed))
    names = sorted(changed, key=lambda name: -abs(changed[name]))[:_NAMED]
    if reason and "front end" in reason:  # Name first what the reason is about.
        names = sorted(changed, key=lambda n: (n not in _FRONT_END, -abs(changed[n])))[:_NAMED]
    listed = _listed([_change(name, before[name], now[name]) for name in names])
    return f"{reason}: trying {listed}" if reason else f"trying {listed}"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float]:
    """Return the relative changes of the settings that differ."""
    changed = {}
    for name in _NOUNS:
        old, new = before.get(name), now.get(name)
        if isinstance(old, int) and isinstance(new, int) and old != new:
            changed[name] = (new - old) / max(min(old, new), 1)
    return changed


def _change(name: str, old: int, new: int) -> str:
    noun, greater, smaller = _NOUNS[name]
    unit = " ms" if name.endswith("_ms") else ""
    return f"{greater if new > old else smaller} {noun} ({old} → {new}{unit})"


def _limit_of(best: TrialResult, changed: set[str]) -> str | None:
    """Return what looks like the limit of the best trial; None if that is unknown.

    Args:
        changed: settings that the next trial changes: the limit is one that they can move.
    """
    server = best.server
    workers = server.workers_ready or server.settings.get("workers")
    saturated = [time.busy_workers for time in server.handler_times]
    busy = max(saturated, default=server.busy_workers)
    if not workers or busy is None:
        return None
    if busy >= _BUSY * workers:
        return "the workers of the best configuration are busy all the time"
    if changed & _FRONT_END:
        return "the front end looks like the limit"
    if "max_batch_delay_ms" in changed:
        return "workers wait for their batches"
    return "the workers of the best configuration are not always busy"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _figure(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"
