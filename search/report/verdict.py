"""The verdict of a run: what to change, what it gains and costs, and how certain that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from loadgen.formatting import format_percent
from loadgen.rate.thresholds import DEFAULT_THRESHOLDS
from search.answer.gain import Gain, gain_of
from search.answer.operating_points import (
    LatencyPoint,
    OperatingPoint,
    Role,
    measured_points,
    point_with_role,
)
from search.answer.pareto import pareto_points
from search.confirmation.confirmation import Confirmation
from search.confirmation.estimates import REFERENCE
from search.errors import first_line
from search.report.formatting import (
    capitalized,
    format_interval,
    format_memory,
    format_number,
    format_ratio,
    format_ratio_interval,
    markdown_table,
    with_interval,
)
from search.report.goal_verdict import goal_certainty, goal_verdict
from search.report.model_tables import mix_text
from search.study.diff import flat
from search.study.outcome import Outcome
from search.trial.host_info import BESIDE_SERVER
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult
from serving.configuration.defaults import torchserve_defaults

#: The latency below the sustained rate is shown at the share closest to this one.
_HALF_LOAD = 0.5
#: Two rates are about the same if their ratio is below this one.
_ABOUT = 1.3
#: A compromise has at least this share of the rate, and at most this share of the p99 latency.
_MUCH_OF_THE_RATE, _MUCH_LESS_LATENCY = 0.5, 0.7
_NO_RATE = "No configuration sustained any rate."
_NOT_MET = "No configuration meets the goal."


def verdict(outcome: Outcome) -> str:
    """Return in one or two sentences what to change, what it gains and what it costs."""
    if not outcome.results:
        return "No trial has finished yet."
    recommended, today = recommended_point(outcome), today_point(outcome)
    is_limited = outcome.objective.has_limits
    if recommended is None:
        return _NOT_MET if is_limited and outcome.closest else _NO_RATE
    if not outcome.objective.maximizes_rate:
        name = today_name(outcome.reference) if outcome.reference else ""
        return goal_verdict(
            outcome, recommended, name, _is_undecided(outcome), missed_goal(outcome)
        )
    mix = f" ({text})" if (text := mix_text(outcome)) else ""
    rate = f"{format_number(recommended.sustained_rps)} requests/s{mix} at 100 % success"
    reference = outcome.reference
    if reference is None:
        return f"Deploy {recommended.name}: it sustains {rate}{_own_costs(recommended)}."
    if recommended.config == reference.config:
        if all(result.config == reference.config for result in outcome.results):
            return (
                f"Nothing but {today_name(reference)} was measured. It sustains {rate}"
                f"{_own_costs(recommended)}."
            )
        return (
            f"Change nothing: no configuration was {'better' if is_limited else 'faster'} than "
            f"{today_name(reference)}, which sustains {rate}{_own_costs(recommended)}."
        )
    if today is None:
        return (
            f"Deploy {recommended.name} instead of {today_name(reference)}: it sustains {rate}"
            f"{_own_costs(recommended)}. {capitalized(today_name(reference))} failed: "
            f"{first_line(reference.cause)}."
        )
    sentence = (
        f"it sustains {rate} instead of {format_number(today.sustained_rps)}"
        f"{_gain_text(gain_of(outcome), today)}{_costs_against(outcome, recommended, today)}"
    )
    if missed := missed_goal(outcome):
        return f"{missed} The best candidate is {recommended.name}: {sentence}."
    if _is_undecided(outcome):
        return (
            f"No configuration is {'better' if is_limited else 'faster'} than "
            f"{today_name(reference)} with 95 % confidence. "
            f"The best candidate is {recommended.name}: {sentence}."
        )
    return f"Deploy {recommended.name} instead of {today_name(reference)}: {sentence}."


def missed_goal(outcome: Outcome) -> str:
    """Return that the recommended configuration missed the goal at the end; empty if it did not."""
    confirmation = outcome.confirmation
    missed = confirmation.shortfalls(confirmation.winner) if confirmation else ()
    if not missed:
        return ""
    reasons = "; ".join(str(shortfall) for shortfall in missed)
    return f"No configuration was verified to meet the goal ({reasons})."


def compromise(outcome: Outcome) -> str:
    """Return which configuration gives up some of the rate for much less latency, in a sentence.

    Empty if there is none, or if the rate is not what the run optimizes.
    """
    recommended = recommended_point(outcome)
    knee = point_with_role(pareto_points(outcome), Role.KNEE)
    if recommended is None or knee is None or not outcome.objective.maximizes_rate:
        return ""
    share = knee.sustained_rps / recommended.sustained_rps
    if not knee.p99_s or not recommended.p99_s or not _MUCH_OF_THE_RATE <= share < 1:
        return ""
    if knee.p99_s > _MUCH_LESS_LATENCY * recommended.p99_s:
        return ""
    return (
        f"A compromise is {knee.name}: {format_number(knee.sustained_rps)} requests/s "
        f"({format_percent(share)} of {recommended.name}'s rate){_own_costs(knee)}. "
        f"`servetune export {outcome.run.argument} --pick knee` writes it."
    )


def certainty(outcome: Outcome) -> str:
    """Return how sure the verdict is, in sentences; empty without a recommendation."""
    recommended, gain = recommended_point(outcome), gain_of(outcome)
    if recommended is None:
        return ""
    words = reference_words(outcome.reference)
    confirmation, sentences = outcome.confirmation, []
    # Whether the gain is that of the search.
    is_searched = confirmation is None or confirmation.ratio is None
    if confirmation is None:
        sentences.append(
            "Not confirmed: each configuration was measured once, and the highest of many noisy "
            "rates is on average too high"
        )
    else:
        sentences.append(_visits_text(outcome, confirmation, recommended))
        sentences.append(_reproduction(recommended))
    if not outcome.objective.maximizes_rate:
        sentences.append(goal_certainty(outcome, words.possessive))
    elif gain is not None and gain.ratio.low < gain.ratio.high:
        kind = "By the search alone" if is_searched else "With 95 % confidence"
        interval = f"{format_ratio(gain.ratio.low)} and {format_ratio(gain.ratio.high)}"
        sentences.append(f"{kind} its rate is between {interval} times {words.possessive}")
        if gain.is_confirmed:
            sentences.append(_closed_loop_sentence(outcome, today_point(outcome)))
    if outcome.run.recorded().get("placement", {}).get("load") == BESIDE_SERVER:
        sentences.append(
            "The load generator shared the server's cores: a dedicated server is likely to be "
            "faster"
        )
    if _is_undecided(outcome):
        names = f"{recommended.name.capitalize()} and {words.noun}"
        sentences.append(f"{names} are statistically indistinguishable")
    sentences += [*_unsteady(outcome, recommended), *_alternatives(outcome, recommended)]
    if confirmation is not None:
        has_notes = outcome.objective.maximizes_rate and not is_searched
        notes = gain.warnings if gain is not None and has_notes else ()
        why = confirmation.why_inconclusive
        sentences += [f"Note: {note}" for note in dict.fromkeys((*notes, why)) if note]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def change_table(outcome: Outcome) -> str:
    """Return the settings to change as a Markdown table; empty if there are none."""
    rows = changed_settings(outcome)
    header = ("setting", reference_words(outcome.reference).title, "recommended")
    return markdown_table(header, rows, False) if rows else ""


def changed_settings(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Return each setting that differs: its name, its value today and the recommended value."""
    reference, chosen = outcome.reference, outcome.chosen
    if reference is None or chosen is None or reference.config == chosen.config:
        return []
    before, after = flat(reference.config.to_dict()), flat(chosen.config.to_dict())
    cores, facts = reference.host.cores, reference.host.facts
    defaults = torchserve_defaults(cores, facts.get("affinity_cores")) if cores else {}
    defaults = {**defaults, **reference.server.settings}

    def value_in(settings: Mapping[str, Any], name: str) -> tuple[Any, str]:
        value = settings.get(name, defaults.get(name))
        if name in settings:
            return value, str(value)
        return value, "default" if value is None else f"{value} (default)"

    rows = []
    for name in dict.fromkeys((*after, *before)):
        (old, old_text), (new, new_text) = value_in(before, name), value_in(after, name)
        if old != new:
            rows.append((name, old_text, new_text))
    return rows


def cost_table(outcome: Outcome) -> str:
    """Return rate, latency and memory of today's and the recommended configuration."""
    recommended, today = recommended_point(outcome), today_point(outcome)
    if recommended is None:
        return ""
    is_same = today is not None and today.config == recommended.config
    columns = [recommended] if today is None or is_same else [today, recommended]
    today_column = reference_words(outcome.reference).title
    titles = ["recommended"] if len(columns) == 1 else [today_column, "recommended"]
    header = ("", *(f"{t} ({p.name})" for t, p in zip(titles, columns, strict=True)))
    rows = [
        ("sustained rate, requests/s", *(format_rate(p) for p in columns)),
        ("p99 latency at this rate, s", *(_p99_cell(p) for p in columns)),
        ("p99 latency at about half of this rate, s", *(_half_load_cell(p) for p in columns)),
        *([] if today is None or is_same else [_todays_load_row(outcome, today, recommended)]),
        ("workers", *("" if p.workers is None else str(p.workers) for p in columns)),
        ("peak memory", *(format_memory(p.memory_mb) for p in columns)),
        ("peak GPU memory", *(format_memory(p.gpu_memory_mb) for p in columns)),
    ]
    return markdown_table(header, [row for row in rows if {*row[1:]} - {"", "not measured"}])


def recommended_point(outcome: Outcome) -> OperatingPoint | None:
    """Return the recommended configuration; None without one."""
    return point_with_role(measured_points(outcome), Role.RECOMMENDED)


def today_point(outcome: Outcome) -> OperatingPoint | None:
    """Return what runs today; None if it sustained no rate."""
    return point_with_role(measured_points(outcome), Role.REFERENCE)


def today_name(reference: TrialResult) -> str:
    """Return what the reference is, with its trial."""
    if reference.origin is TrialOrigin.BASELINE:
        return f"what runs today (trial {reference.number})"
    return f"TorchServe's {reference.origin} (trial {reference.number})"


class ReferenceWords(NamedTuple):
    """What the reference is called: today's configuration, or TorchServe's default without one."""

    title: str
    possessive: str
    noun: str


def reference_words(reference: TrialResult | None) -> ReferenceWords:
    """Return what the reference of a run is called."""
    if reference is not None and reference.origin is TrialOrigin.DEFAULT:
        return ReferenceWords("default", "the default's", "the default")
    return ReferenceWords("today", "today's", "today's configuration")


def format_rate(point: OperatingPoint) -> str:
    """Return the rate of a configuration, with its interval if it is confirmed."""
    return with_interval(format_number(point.sustained_rps), point.rate)


def _is_undecided(outcome: Outcome) -> bool:
    """Return whether the confirmation cannot tell the recommended from what runs today."""
    ratio = outcome.confirmation.score_ratio if outcome.confirmation else None
    return ratio is not None and not ratio.excludes_one


def _gain_text(gain: Gain | None, today: OperatingPoint) -> str:
    if gain is None:
        return ""
    ratio = format_ratio(gain.ratio.mean)
    if not gain.is_confirmed:
        return f", {ratio} times as many (not confirmed)"
    interval = format_ratio_interval(gain.ratio)
    if today.rate is None:
        # The ratio is not that of the two rates: only one of them is the confirmation's.
        return (
            f" in the search, and in interleaved measurements {ratio} times as many "
            f"(95 % interval {interval})"
        )
    return f", {ratio} times as many (95 % interval {interval})"


def _costs_against(outcome: Outcome, recommended: OperatingPoint, today: OperatingPoint) -> str:
    """Return what the change costs in latency and memory, as a clause."""
    costs = []
    if recommended.p99_s is not None and today.p99_s is not None:
        lower = _at_todays_load(recommended, today)
        whose = reference_words(outcome.reference).possessive
        at_todays = f" ({format_number(lower.p99_s)} s at {whose} rate)" if lower else ""
        costs.append(
            f"a p99 latency of {format_number(recommended.p99_s)} s at its own rate{at_todays} "
            f"instead of {format_number(today.p99_s)} s"
        )
    if recommended.memory_mb is not None and today.memory_mb is not None:
        costs.append(
            f"{format_memory(recommended.memory_mb)} of memory instead of "
            f"{format_memory(today.memory_mb)}"
        )
    return f", with {' and '.join(costs)}" if costs else ""


def _p99_cell(point: OperatingPoint) -> str:
    """Return the p99 latency, with the measured server's own rate if it differs."""
    if point.p99_s is None:
        return ""
    rate_rps = next((p.rate_rps for p in point.latency if p.share >= 1), point.sustained_rps)
    p99, rate = format_number(point.p99_s), format_number(rate_rps)
    return p99 if rate == format_number(point.sustained_rps) else f"{p99} (at {rate} requests/s)"


def _own_costs(point: OperatingPoint) -> str:
    costs = []
    if point.p99_s is not None:
        costs.append(f"a p99 latency of {format_number(point.p99_s)} s at this rate")
    if point.memory_mb is not None:
        costs.append(f"{format_memory(point.memory_mb)} of memory")
    return f", with {' and '.join(costs)}" if costs else ""


def _reproduction(recommended: OperatingPoint) -> str:
    """Return what another measurement is expected to give, as a sentence; empty if unknown."""
    if recommended.rate is None:
        return ""
    return (
        f"Another measurement of {recommended.name} is expected to give "
        f"{format_number(recommended.rate.mean)} requests/s (95 % prediction interval: "
        f"{format_interval(recommended.rate)})"
    )


def _visits_text(outcome: Outcome, confirmation: Confirmation, recommended: OperatingPoint) -> str:
    """Return how often the confirmation measured the recommended configuration and today's."""
    ours, theirs = (len(confirmation.visits(index)) for index in (confirmation.winner, REFERENCE))
    rounds = "1 round" if ours == 1 else f"{ours} rounds"
    reference = reference_words(outcome.reference).noun
    if confirmation.winner == REFERENCE:
        return f"The confirmation measured it in {rounds}, each time in a fresh server"
    return (
        f"The confirmation measured {recommended.name} in {rounds} and {reference} in "
        f"{theirs}, interleaved, each time in a fresh server"
    )


def _closed_loop_sentence(outcome: Outcome, today: OperatingPoint | None) -> str:
    """Return what the confirmed ratio compares; empty if it compares sustained rates."""
    confirmation = outcome.confirmation
    if confirmation is None or today is None:
        return ""
    ours, theirs = (
        format_number(confirmation.mean_rps(index)) for index in (confirmation.winner, REFERENCE)
    )
    is_closed_loop = confirmation.plan.objective.compares_capacities
    if not ours or not theirs or confirmation.winner == REFERENCE or not is_closed_loop:
        return ""
    sentence = f"This ratio compares the throughput at full load: {ours} and {theirs} requests/s"
    if today.rate is None:
        rate, whose = (
            format_number(today.sustained_rps),
            capitalized(reference_words(outcome.reference).possessive),
        )
        sentence += f". {whose} sustained rate of {rate} requests/s is that of the search"
    return sentence


def _unsteady(outcome: Outcome, recommended: OperatingPoint) -> list[str]:
    """Return that the speed of the recommended configuration, or of today's, varies by itself."""
    named = [(recommended.config, recommended.name)]
    if outcome.reference is not None and outcome.reference.config != recommended.config:
        named.append((outcome.reference.config, reference_words(outcome.reference).noun))
    found = []
    for config, name in named:
        estimates = [r.rate.estimate for r in outcome.results if r.config == config]
        error = max((e.standard_error for e in estimates if e is not None), default=0.0)
        if error > DEFAULT_THRESHOLDS.unsteady:
            found.append(
                f"The speed of {name} varies within a measurement: the standard error of its "
                f"throughput was {format_percent(error)}, so that two measurements may differ much"
            )
    return found


def _alternatives(outcome: Outcome, recommended: OperatingPoint) -> list[str]:
    """Return the other finalists that may be as good, with their costs."""
    confirmation = outcome.confirmation
    if confirmation is None:
        return []
    points = {point.config.digest: point for point in measured_points(outcome)}
    found = [
        points.get(confirmation.plan.requests[c.index].config.digest)
        for c in confirmation.comparisons
        if c.is_indistinguishable and c.ratio is not None
    ]
    return [
        f"{point.name.capitalize()} is statistically indistinguishable from {recommended.name}: "
        f"{format_number(point.sustained_rps)} requests/s{_own_costs(point)}"
        for point in found
        if point is not None
    ]


def _todays_load_row(
    outcome: Outcome, today: OperatingPoint, recommended: OperatingPoint
) -> tuple[str, ...]:
    lower = _at_todays_load(recommended, today)
    return (
        f"p99 latency at about {reference_words(outcome.reference).possessive} rate, s",
        _p99_cell(today) if lower else "",
        _point_cell(lower) if lower else "",
    )


def _at_todays_load(recommended: OperatingPoint, today: OperatingPoint) -> LatencyPoint | None:
    """Return the latency of the recommended configuration at about today's rate.

    None if there was no window at such a rate, or if today's rate is about its own.
    """
    # The search and the confirmation measured today's rate.
    rates_rps = [today.sustained_rps, *(p.rate_rps for p in today.latency if p.share >= 1)]

    def distance(point: LatencyPoint) -> float:
        return min(abs(math.log(point.rate_rps / rate_rps)) for rate_rps in rates_rps)

    closest = min(recommended.latency, key=distance, default=None)
    if closest is None or closest.share >= 1 or distance(closest) > math.log(_ABOUT):
        return None
    return closest


def _half_load_cell(point: OperatingPoint) -> str:
    below: list[LatencyPoint] = [each for each in point.latency if each.share < 1]
    if not below:
        return "not measured"
    return _point_cell(min(below, key=lambda each: abs(each.share - _HALF_LOAD)))


def _point_cell(point: LatencyPoint) -> str:
    return f"{format_number(point.p99_s)} (at {format_number(point.rate_rps)} requests/s)"
