"""How many replicas of the recommended configuration a load needs. Pure."""

from __future__ import annotations

from loadgen.formatting import format_percent
from search.answer.plan import CapacityPlan, Quantity, ReplicaLoad, capacity_plan
from search.errors import RunError
from search.report.formatting import format_memory, format_number, markdown_table
from search.report.verdict import recommended_point
from search.study.outcome import Outcome

#: The loads of the table, requests/s.
_LOADS_RPS = (100.0, 1000.0, 10000.0)


def replicas_section(outcome: Outcome) -> list[str]:
    """Return the section of report.md; empty if the recommended rate is not known."""
    plans = [plan for rate_rps in _LOADS_RPS if (plan := _plan(outcome, rate_rps))]
    if not plans:
        return []
    header = (
        *("load, requests/s", "replicas", "load of each, requests/s", "p99 latency, s"),
        "p99 latency with one replica down, s",
    )
    rows = [
        (
            f"{plan.rate_rps:,.0f}",
            _cell(plan.replicas),
            format_number(plan.load.rps),
            _latency_cell(plan.load),
            _latency_cell(plan.one_down) if plan.one_down else "–",
        )
        for plan in plans
    ]
    plan = plans[0]
    counted = (
        "The number of replicas counts with the lower end of the interval"
        if plan.has_intervals
        else "The interval of the rate is not known, because it was not confirmed"
    )
    return [
        "## How many replicas",
        f"A replica is one server of {plan.point.name}{_needs(outcome, plan)}, which sustains "
        f"{_cell(plan.replica_rps)} requests/s. {counted}, and {format_percent(plan.headroom)} of "
        "each replica's rate stays free for peaks. The latency is that of such a replica, too. "
        f"`servetune plan {outcome.run.argument} --rps RATE` computes it for any load, with a "
        "limit on the latency, the cost and the numbers for autoscaling.",
        markdown_table(header, rows),
    ]


def replicas_sentence(outcome: Outcome, rate_rps: float = 1000.0) -> str:
    """Return how many replicas a load needs, in a sentence; empty if it is not known."""
    plan = _plan(outcome, rate_rps)
    if plan is None:
        return ""
    replicas = "1 replica. It" if plan.count == 1 else f"{plan.count} replicas. Each"
    return (
        f"A load of {rate_rps:,.0f} requests/s needs {replicas} sustains "
        f"{_cell(plan.replica_rps)} requests/s, and {format_percent(plan.headroom)} of its rate "
        "stays free."
    )


def _plan(outcome: Outcome, rate_rps: float) -> CapacityPlan | None:
    point = recommended_point(outcome)
    if point is None:
        return None
    try:
        return capacity_plan(point, rate_rps)
    except RunError:
        return None


def _needs(outcome: Outcome, plan: CapacityPlan) -> str:
    """Return the cores and the memory of a replica, as a clause."""
    cores = outcome.run.recorded().get("host", {}).get("cores")
    needs = [f"{cores} cores" if cores != 1 else "1 core"] if cores else []
    if memory := format_memory(plan.point.memory_mb):
        needs.append(f"{memory} of memory at its peak")
    return f" on a host like the measured one ({', '.join(needs)})" if needs else ""


def _latency_cell(load: ReplicaLoad) -> str:
    return _cell(load.p99_s) if load.p99_s else "not measured"


def _cell(quantity: Quantity) -> str:
    """Return a value with its interval."""
    value = format_number(quantity.value)
    if quantity.low is None or quantity.high is None or quantity.low == quantity.high:
        return value
    return f"{value} ({format_number(quantity.low)} to {format_number(quantity.high)})"
