"""Configurations whose rate was not measured, as the trials of their run predict them. Pure."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from search.answer.operating_points import OperatingPoint, measured_points
from search.answer.pareto import pareto_front
from search.intervals import Interval
from search.sampler.observations import Point
from search.sampler.prediction import (
    MEMORY_RULES,
    P99_RULES,
    FigurePrediction,
    FigureRules,
    predict_figure,
)
from search.sampler.what_if import predicted_configs
from search.spec.space import Space
from search.study.outcome import Outcome
from search.trial.result import TrialResult, TrialState
from serving.configuration.config import ServerConfig

#: Maximum number of configurations without a trial that are shown.
_MAX_UNTRIED = 8
#: Numbers whose ratio is not above this are as good as equal.
_NEAR_RATIO = 1.1
#: A configuration is shown if it serves with at least this probability.
_MIN_SERVING = 0.5


@dataclass(frozen=True)
class PredictedPoints:
    """The predicted configurations of a run.

    Attributes:
        points: trials without a sustained rate whose rate is predicted, then untried
            configurations that no measured one beats if their predictions hold.
        unknown: what is not known and why, without full stops.
    """

    points: tuple[OperatingPoint, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Trials:
    """The outcome of a run, equal to another one of the same space and measurements."""

    digest: str
    outcome: Outcome = field(compare=False)

    @classmethod
    def of(cls, outcome: Outcome) -> _Trials:
        confirmation = outcome.confirmation
        verified = confirmation.verified.values() if confirmation else ()
        records = [result.to_dict() for result in (*outcome.results, *verified)]
        text = f"{outcome.space} {json.dumps(records)}"
        return cls(hashlib.sha256(text.encode()).hexdigest(), outcome)


def predicted_points(outcome: Outcome) -> PredictedPoints:
    """Return what the trials of a run predict of configurations that they did not measure.

    The rate is that of `servetune predict`. p99 and memory are those of one more measurement; they
    are None unless the measured values predict each other. Nothing is predicted for a sweep, and
    while the run goes on: the prediction would take CPU time from its measurements.
    """
    if outcome.spec.sweep is not None or outcome.space is None:
        return PredictedPoints()
    if outcome.reason is None:
        reason = "other configurations are predicted when the run has ended"
        return PredictedPoints(unknown=(reason,))
    return _predicted(_Trials.of(outcome))


@lru_cache(maxsize=8)
def _predicted(trials: _Trials) -> PredictedPoints:
    outcome = trials.outcome
    space = outcome.space
    assert space is not None
    measured = measured_points(outcome)
    ended = {r.config.digest: r for r in outcome.results if r.state is not TrialState.PRUNED}
    pruned = {
        r.config.digest: r
        for r in outcome.results
        if r.state is TrialState.PRUNED and r.config.digest not in ended
    }
    # Different settings may give the same server.
    identities = {space.identity(r.config) for r in outcome.results if r.config.digest in ended}
    candidates = [
        (config, rate)
        for config, rate in predicted_configs(space, outcome.results)
        if rate.is_known
        and (rate.serves or 0.0) >= _MIN_SERVING
        and space.identity(config) not in identities
    ]
    if not candidates:
        return PredictedPoints(unknown=("no other configuration has a rate that is known",))
    configs = [config for config, _ in candidates]
    latencies = [(point.config, point.p99_s) for point in measured]
    p99 = _predict(space, latencies, configs, P99_RULES)
    memory = _predict(space, _memories(outcome.results), configs, MEMORY_RULES)
    points = [
        OperatingPoint(
            number=pruned[config.digest].number if config.digest in pruned else None,
            config=config,
            sustained_rps=rate.median_rps or 0.0,
            rate=Interval(rate.median_rps or 0.0, rate.low_rps or 0.0, rate.high_rps or 0.0),
            p99_s=p99_of.mean if p99_of else None,
            p99=p99_of,
            memory_mb=round(memory_of.mean) if memory_of else None,
            memory=memory_of,
            workers=space.workers(config),
            is_measured=False,
        )
        for (config, rate), p99_of, memory_of in zip(
            candidates, p99.values, memory.values, strict=True
        )
    ]
    # The peak of a pruned trial was measured, unlike its sustained rate.
    tried = [
        replace(point, memory_mb=peak, memory=None)
        if (peak := pruned[point.config.digest].server.peak_memory_mb)
        else point
        for point in points
        if point.number is not None
    ]
    untried = [point for point in points if point.number is None]
    front = [p for p in pareto_front([*measured, *tried, *untried]) if p.number is None]
    shown = _spread(_distinct(space, front, [*measured, *tried]), _MAX_UNTRIED)
    named = [replace(p, letter=c) for p, c in zip(shown, string.ascii_uppercase, strict=False)]
    unknown = [
        f"{name} of predicted configurations is not known: {found.reason}"
        for name, found in (("the p99 latency", p99), ("the memory", memory))
        if found.reason
    ]
    return PredictedPoints((*sorted(tried, key=lambda p: p.number or 0), *named), tuple(unknown))


def _distinct(
    space: Space, untried: Sequence[OperatingPoint], tried: Sequence[OperatingPoint]
) -> list[OperatingPoint]:
    """Return the untried points that differ noticeably from those tried and from each other."""
    known = [space.values(point.config) for point in tried]
    kept = []
    for point in sorted(untried, key=lambda p: -p.sustained_rps):
        values = space.values(point.config)
        if not any(_is_near(values, other) for other in known):
            kept.append(point)
            known.append(values)
    return kept


def _is_near(values: Point | None, other: Point | None) -> bool:
    """Return whether two points are as good as equal; None is no point of the space."""
    return (
        values is not None
        and other is not None
        and all(
            value == other[name] or _are_near(value, other[name]) for name, value in values.items()
        )
    )


def _are_near(value: Any, other: Any) -> bool:
    are_numbers = all(type(each) in (int, float) and each > 0 for each in (value, other))
    return are_numbers and max(value, other) <= _NEAR_RATIO * min(value, other)


def _spread(points: Sequence[OperatingPoint], count: int) -> list[OperatingPoint]:
    """Return some of the points, the first and the last included, the highest rate first."""
    ordered = sorted(points, key=lambda p: -p.sustained_rps)
    if len(ordered) <= count:
        return ordered
    return [ordered[round(n * (len(ordered) - 1) / (count - 1))] for n in range(count)]


def _predict(
    space: Space,
    measured: Sequence[tuple[ServerConfig, float | None]],
    configs: Sequence[ServerConfig],
    rules: FigureRules,
) -> FigurePrediction:
    known = [(space.values(config), value) for config, value in measured if value]
    of_space = [(point, value) for point, value in known if point is not None]
    points = [point for config in configs if (point := space.values(config)) is not None]
    return predict_figure(space, of_space, points, rules)


def _memories(results: Sequence[TrialResult]) -> list[tuple[ServerConfig, float | None]]:
    """Return the highest peak of each configuration that ended without a failure."""
    peaks: dict[str, tuple[ServerConfig, float]] = {}
    for result in results:
        peak, config = float(result.server.peak_memory_mb or 0), result.config
        if result.state is not TrialState.FAILED and peak:
            _, highest = peaks.get(config.digest, (config, 0.0))
            peaks[config.digest] = config, max(peak, highest)
    return [(config, peak) for config, peak in peaks.values()]
