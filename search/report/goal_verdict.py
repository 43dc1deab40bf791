"""The verdict of a run for the lowest latency or the least memory at a given rate. Pure."""

from __future__ import annotations

from search.answer.confirmed import Confirmed
from search.answer.operating_points import OperatingPoint
from search.report.formatting import capitalized, format_memory, format_number, format_ratio
from search.study.outcome import Outcome
from search.trial.objective import Figures, Objective
from serving.configuration.config import ServerConfig


def goal_verdict(
    outcome: Outcome, recommended: OperatingPoint, today: str, undecided: bool, missed_goal: str
) -> str:
    """Return what to change and what it gains by the objective, in one or two sentences.

    Args:
        today: names what runs today.
        undecided: whether the confirmation cannot tell the recommended from it.
        missed_goal: that the recommended one missed the goal at the end, as a sentence; else empty.
    """
    objective, reference = outcome.objective, outcome.reference
    ours = goal_figures(outcome, recommended.config)
    rate = f"It sustains {format_number(recommended.sustained_rps)} requests/s"
    if missed_goal:
        gain = _gain(objective, ours, None)
        return f"{missed_goal} The best candidate is {recommended.name}: {gain}. {rate}."
    if reference is None:
        return f"Deploy {recommended.name}: {_gain(objective, ours, None)}. {rate}."
    if reference.config == recommended.config:
        return (
            f"Change nothing: no configuration was better than {today}. "
            f"{capitalized(_gain(objective, ours, None))}. {rate}."
        )
    theirs = goal_figures(outcome, reference.config)
    missed = objective.shortfalls(theirs)
    gain = _gain(objective, ours, None if missed else theirs)
    if missed:
        reasons = "; ".join(str(shortfall) for shortfall in missed)
        rate += f". {capitalized(today)} misses the goal: {reasons}"
    elif theirs.sustained_rps:
        rate += f" instead of {format_number(theirs.sustained_rps)}"
    if undecided:
        return (
            f"No configuration is better than {today} with 95 % confidence. The best candidate is "
            f"{recommended.name}: {gain}. {rate}."
        )
    return f"Deploy {recommended.name} instead of {today}: {gain}. {rate}."


def goal_certainty(outcome: Outcome, todays: str) -> str:
    """Return the interval of what the run optimizes, ÷ today's; empty if it is not known.

    Args:
        todays: the possessive of what runs today.
    """
    confirmation = outcome.confirmation
    ratio = confirmation.score_ratio if confirmation else None
    if ratio is None:
        return ""
    name = "p99 latency" if outcome.objective.kind == "latency" else "memory"
    # The score is the inverse of what is optimized.
    bounds = f"{format_ratio(1 / ratio.high)} and {format_ratio(1 / ratio.low)}"
    return f"With 95 % confidence its {name} is between {bounds} times {todays}"


def goal_figures(outcome: Outcome, config: ServerConfig) -> Figures:
    """Return the figures of a configuration by its trials and by the confirmation.

    The sustained rate is that of the trials: a visit verifies none.
    """
    trials = [result for result in outcome.results if result.config == config]
    confirmed = Confirmed.of(outcome.confirmation, config)
    servers = [*trials, *(confirmed.servers if confirmed else ())]
    targets = [t.p99_s for r in servers if (t := r.latency.target) and t.p99_s is not None]
    figures = Figures.of(trials)
    memory_mb = max((r.server.peak_memory_mb or 0 for r in servers), default=0) or None
    p99_s = sorted(targets)[len(targets) // 2] if targets else None
    return Figures(
        sustained_rps=figures.sustained_rps,
        capacity_rps=figures.capacity_rps,
        p99_s=p99_s,
        p95_s=figures.p95_s,
        is_served=figures.is_served,
        not_served=figures.not_served,
        memory_mb=memory_mb,
        workers=figures.workers,
    )


def _gain(objective: Objective, ours: Figures, theirs: Figures | None) -> str:
    """Return the figures of the recommended configuration beside those of another, as a clause."""
    load = f"at {format_number(objective.for_rps)} requests/s"
    p99 = format_number(ours.p99_s)
    memory = f"{format_memory(ours.memory_mb) or 'an unknown amount'} of memory"
    workers = f"{ours.workers} {'worker' if ours.workers == 1 else 'workers'}"
    if theirs is not None:
        p99 += f" s instead of {format_number(theirs.p99_s) or 'an unknown one'}"
        memory += f" instead of {format_memory(theirs.memory_mb) or 'an unknown amount'}"
        workers += f" instead of {theirs.workers}" if theirs.workers != ours.workers else ""
    p99 += " s" if theirs is None or theirs.p99_s is not None else ""
    if objective.kind == "latency":
        return f"{load} its p99 latency is {p99}, with {memory}"
    return f"{load} it needs {memory} and {workers}, with a p99 latency of {p99}"
