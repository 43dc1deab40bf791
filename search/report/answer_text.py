"""The Pareto front and the capacity plan as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.formatting import format_percent
from search.answer.operating_points import OperatingPoint, Role
from search.answer.plan import CapacityPlan, Quantity, ReplicaLoad
from search.answer.predicted import PredictedPoints
from search.intervals import Interval
from search.report.formatting import capitalized, format_interval, format_number

#: The p99 latency is given at these shares of the sustained rate, as "–" if it is not known.
_SHARES = (0.5, 0.7, 0.9, 1.0)
POINT_HEADER = ("", "trial", "role", "rps", "p99 s *", "MiB", "workers")


def point_row(point: OperatingPoint, is_on_front: bool) -> tuple[str, ...]:
    """Return the cells of a configuration under `POINT_HEADER`."""
    p99_by_share = {p.share: p.p99_s for p in point.latency}
    if point.p99_s is not None:
        p99_by_share.setdefault(1.0, point.p99_s)
    latencies = (format_number(p99_by_share.get(share)) or "–" for share in _SHARES)
    memory = _with_interval(format_number(point.memory_mb), point.memory)
    if point.gpu_memory_mb:
        memory += f" + {format_number(point.gpu_memory_mb)} GPU"
    return (
        ("●" if point.is_measured else "○") if is_on_front else "",
        format_number(point.number) if point.number is not None else point.letter,
        "\n".join(role for role in Role if role in point.roles)
        if point.is_measured
        else "predicted",
        _with_interval(format_number(point.sustained_rps), point.rate),
        _with_interval(" ".join(latencies), point.p99),
        memory or "–",
        format_number(point.workers),
    )


def _with_interval(text: str, interval: Interval | None) -> str:
    return f"{text}\n{format_interval(interval)}" if interval else text


def plan_rows(plan: CapacityPlan) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the value and the interval of each number of a plan."""
    limit = "" if plan.p99_limit_s is None else f" within a p99 of {plan.p99_limit_s:g} s"
    yield _row(f"a replica sustains{limit}", "rps", plan.replica_rps)
    yield _row("replicas", "", plan.replicas)
    yield from _load_rows("load of each", plan.load)
    yield _row("peak memory of each", "MiB", plan.memory_mb)
    yield _row("peak memory of all", "MiB", plan.total_memory_mb)
    if plan.cost_per_million is not None:
        yield _row("cost of a million requests", "", plan.cost_per_million)
    if plan.one_down is not None:
        yield from _load_rows("with one replica down: load of each", plan.one_down)
    kept = f"{format_percent(plan.headroom)} kept free"
    yield _row(f"scale out at ({kept})", "rps per replica", plan.target_rps)
    yield _row("or at a concurrency of", "in flight per replica", plan.concurrency)
    yield _row("or on SageMaker at", "invocations/min", plan.invocations_per_minute)
    metric = plan.scaling.pod_target["pods"]
    target = f"{metric['metric']['name']}: {metric['target']['averageValue']}"
    yield "or HorizontalPodAutoscaler", target, ""


def _load_rows(name: str, load: ReplicaLoad) -> Iterator[tuple[str, str, str]]:
    share = f"{format_percent(load.share)} of its rate"
    warning = "" if load.is_sustained else "; more than the planned rate"
    yield name, f"{format_number(load.rps)} rps, {share}{warning}", ""
    for quantile, value in (("p50", load.p50_s), ("p99", load.p99_s)):
        if value is None:
            yield f"  {quantile} latency", "not known: above every measured load", ""
        else:
            yield _row(f"  {quantile} latency", "s", value)


def _row(name: str, unit: str, quantity: Quantity | None) -> tuple[str, str, str]:
    if quantity is None:
        return name, "not known", ""
    value = f"{format_number(quantity.value)} {unit}".strip()
    if quantity.low is None:
        return name, value, ""
    high = "not known" if quantity.high is None else format_number(quantity.high)
    return name, value, f"{format_number(quantity.low)} to {high}"


def front_note(points: Sequence[OperatingPoint]) -> str:
    """Return what the marks of the table mean, and that without a knee there is none."""
    text = (
        "● no other configuration is better in one value without being worse in another; ○ the "
        "same, if the prediction holds"
    )
    if not any(Role.KNEE in point.roles for point in points):
        text += "; the front has no knee"
    shares = ", ".join(format_percent(share) for share in _SHARES)
    return f"{text}.\n* at {shares} of the rate; – is neither measured nor predicted."


def predicted_note(predicted: PredictedPoints) -> str:
    """Return what the predicted rows of a table mean, and what is not known, in sentences."""
    sentences = []
    if predicted.points:
        sentences.append(
            "The rates of predicted rows are not measured: the run's trials predict them, with "
            "90 % intervals. A number is a pruned trial, a letter a configuration that was not "
            "tried"
        )
    sentences += map(capitalized, predicted.unknown)
    return " ".join(f"{sentence}." for sentence in sentences)
