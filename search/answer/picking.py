"""Choose a configuration by what it is for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from search.answer.latency_curve import LatencyCurve
from search.answer.operating_points import OperatingPoint, Role, point_with_role
from search.errors import CommandError, RunError

_FORMS = "max, knee, p99=SECONDS or trial=NUMBER"


def pick(points: Sequence[OperatingPoint], choice: str) -> OperatingPoint:
    """Return the measured point that a text chooses.

    Args:
        points: with their roles.
        choice:
            max: the highest rate.
            knee: the point after which more rate costs the most latency.
            p99=SECONDS: the highest rate within this limit on the p99 latency.
            trial=NUMBER: the configuration of a trial.

    Raises:
        CommandError: the text has another form.
        RunError: no measured point is chosen.
    """
    measured = [point for point in points if point.is_measured]
    if not measured:
        raise RunError("no trial sustained any rate")
    name, _, value = choice.partition("=")
    if choice in (Role.MAX, Role.KNEE):
        chosen = point_with_role(measured, Role(choice))
        if chosen is None:
            raise RunError(
                "the front has no knee: fewer than three configurations trade rate for "
                "latency, or all do so in proportion; use max or p99=SECONDS"
            )
        return chosen
    if name == "p99" and (limit_s := _number(value)):
        return _fastest_within(measured, limit_s)
    if name == "trial" and value.isdecimal():
        return _point_of_trial(measured, int(value))
    raise CommandError(f"--pick must be {_FORMS} (got {choice!r})")


#: Why there is no recommended configuration although rates were sustained.
NOT_RECOMMENDED = (
    "no configuration meets the goal; use --pick max, knee, p99=SECONDS or trial=NUMBER"
)


def pick_or_recommended(points: Sequence[OperatingPoint], choice: str | None) -> OperatingPoint:
    """Return what `pick` chooses, else the recommended point.

    Raises:
        CommandError, RunError: see `pick`; there is no recommended point.
    """
    if choice is not None:
        return pick(points, choice)
    recommended = point_with_role(points, Role.RECOMMENDED)
    if recommended is None:
        raise RunError(NOT_RECOMMENDED if points else "no trial sustained any rate")
    return recommended


def limit_notes(point: OperatingPoint, choice: str) -> list[str]:
    """Return up to which rate the limit holds with which `--pick p99=…` chose a point."""
    name, _, value = choice.partition("=")
    limit_s = _number(value) if name == "p99" else None
    if limit_s is None or (rate_rps := rate_within(point, limit_s)) is None:
        return []
    return [
        f"{point.name} sustains {point.sustained_rps:.3g} rps, and its p99 latency is within "
        f"{limit_s:g} s up to {rate_rps:.3g} rps: servetune plan --p99 {limit_s:g} counts with that"
    ]


def _number(text: str) -> float | None:
    """Return a positive finite number; None for other texts."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def rate_within(point: OperatingPoint, p99_s: float) -> float | None:
    """Return the rate up to which a limit on p99 holds, requests/s; None if at no measured load."""
    share = LatencyCurve.of(point.latency).share_within(p99_s)
    return None if share is None else share * point.sustained_rps


def _fastest_within(points: Sequence[OperatingPoint], p99_s: float) -> OperatingPoint:
    rated = [(rate, point) for point in points if (rate := rate_within(point, p99_s))]
    if rated:
        return max(rated, key=lambda entry: entry[0])[1]
    found = [
        (least.p99_s or 0.0, least.rate_rps, point)
        for point in points
        if (least := LatencyCurve.of(point.latency).least_p99)
    ]
    if not found:
        raise RunError("no p99 latency was measured; use max or trial=NUMBER")
    least_s, rate_rps, point = min(found, key=lambda entry: entry[0])
    raise RunError(
        f"no configuration holds a p99 of {p99_s:g} s: the lowest measured p99 is {least_s:.3g} s, "
        f"of {point.name} at {rate_rps:.3g} rps"
    )


def _point_of_trial(points: Sequence[OperatingPoint], number: int) -> OperatingPoint:
    point = next((point for point in points if number in point.trials), None)
    if point is None:
        raise RunError(f"trial {number} does not exist, or sustained no rate")
    return point
