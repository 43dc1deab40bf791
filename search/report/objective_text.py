"""What a run optimized, under which limits, and what misses them by least, in sentences. Pure."""

from __future__ import annotations

from loadgen.formatting import format_percent
from search.report.formatting import format_number, format_settings
from search.study.outcome import Outcome
from search.trial.objective import Figures, Objective, workers_of
from search.trial.result import TrialResult

_LIMITS = {"p99_s": "p99 {} s", "p95_s": "p95 {} s", "memory_mb": "{} MiB", "workers": "{} workers"}


def objective_sentences(outcome: Outcome) -> list[str]:
    """Return the objective, the best by it, and what is closest if nothing meets the limits.

    Empty for the highest rate without limits.
    """
    objective, chosen = outcome.objective, outcome.chosen
    if not objective.has_limits or not outcome.results or outcome.spec.sweep is not None:
        return []
    goal = f"Objective: {describe(objective)}."
    if chosen is None:
        return [goal, *closest_sentences(outcome)]
    sentence = f"{goal} Trial {chosen.number} has {_figures(chosen, objective)}"
    reference = outcome.reference
    if reference is None or reference.config == chosen.config:
        return [f"{sentence}."]
    missed = "; ".join(str(s) for s in objective.shortfalls(Figures.of([reference])))
    miss = f", which misses the goal: {missed}" if missed else ""
    theirs = _figures(reference, objective)
    return [f"{sentence}; the {reference.origin} configuration has {theirs}{miss}."]


def closest_sentences(outcome: Outcome) -> list[str]:
    """Return the configurations that miss the limits by least, and what they miss."""
    return [
        f"Closest: trial {result.number} ({format_settings(result.config)}) misses the goal: "
        f"{'; '.join(str(shortfall) for shortfall in missed)}. "
        f"It has {_figures(result, outcome.objective)}."
        for result, missed in outcome.closest
    ]


def optimized(objective: Objective) -> str:
    """Return the name of the figures that a run compares."""
    if objective.kind == "latency":
        return f"p99 latencies at {format_number(objective.for_rps)} rps"
    return "peak memory" if objective.kind == "footprint" else "rates"


def describe(objective: Objective) -> str:
    """Return the objective with its limits, without a period."""
    limits = [
        text.format(format_number(value))
        for name, text in _LIMITS.items()
        if (value := getattr(objective, name)) is not None
    ]
    within = f" within {', '.join(limits)}" if limits else ""
    if objective.for_rps is None or objective.required_rps is None:
        return f"the highest sustained rate{within}"
    rate, headroom = f"{objective.for_rps:.4g} rps", 1 - objective.for_rps / objective.required_rps
    free = f" with {format_percent(headroom)} headroom" if headroom > 1e-9 else ""
    least = "the lowest p99 latency" if objective.kind == "latency" else "the least memory"
    return f"{least} at {rate}{free}{within}"


def _figures(result: TrialResult, objective: Objective) -> str:
    """Return the figures of a trial that its objective and limits concern."""
    target = result.latency.target
    parts = [f"{format_number(result.sustained_rps) or 'no'} rps sustained"]
    if target is not None and target.p99_s is not None:
        parts.append(f"p99 {format_number(target.p99_s)} s at {format_number(target.rate_rps)} rps")
    elif objective.limits_latency and result.p99_s is not None:
        parts.append(f"p99 {format_number(result.p99_s)} s at that rate")
    if result.server.peak_memory_mb:
        parts.append(f"{format_number(result.server.peak_memory_mb)} MiB")
    if workers := workers_of(result):
        parts.append(f"{workers} worker{'s' if workers > 1 else ''}")
    return ", ".join(parts)
