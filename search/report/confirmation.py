"""The result of a confirmation, in sentences and as a table."""

from __future__ import annotations

from collections.abc import Iterable

from loadgen.formatting import format_percent
from search.confirmation.confirmation import Comparison, Confirmation
from search.confirmation.estimates import REFERENCE
from search.confirmation.visits import visit_rps
from search.intervals import Interval
from search.report.formatting import (
    capitalized,
    format_interval,
    format_number,
    format_ratio,
    format_ratio_interval,
    markdown_table,
)
from search.trial.result import TrialResult

#: The deviation of the reference is stated if it is this many times the finalists'.
_NOISIER = 1.2
#: What a run optimizes.
_FIGURES = {"rate": "rate", "latency": "p99 latency", "footprint": "memory"}


def confirmation_text(confirmation: Confirmation) -> str:
    """Return the result of a confirmation in a few sentences."""
    sentences = [_rate_of_winner(confirmation)]
    if confirmation.plan.finalists:
        sentences += _comparison_with_reference(confirmation)
    failed_in = _failed_in(confirmation)
    sentences += [
        f"{_trial(confirmation, index)} {failed_in} {failed} of {len(confirmation.visits(index))} "
        "visits"
        for index, failed in sorted(confirmation.race.estimates.failures.items())
        if index == confirmation.winner
    ]
    sentences += [
        sentence
        for comparison in confirmation.comparisons
        if (sentence := _comparison_with_winner(confirmation, comparison))
    ]
    return ". ".join(sentences) + "."


def confirmation_section(confirmation: Confirmation | None) -> list[str]:
    """Return the section of report.md; nothing without a confirmation."""
    if confirmation is None:
        return []
    race, winner = confirmation.race, confirmation.winner
    figure = _compared_figure(confirmation)
    has_latencies = any(r.latency.comparison_p99_s for r in confirmation.verified.values())
    header = (
        *("trial", "sustained rps in the search", "closed loop rps by round", "mean"),
        *(f"{figure} ÷ reference's", f"{figure} ÷ winner's", "result", "verified rps"),
        *(["p99 s at the comparison rate"] if has_latencies else []),
    )
    comparisons = {c.index: c for c in confirmation.comparisons}
    rows = []
    for index, request in enumerate(confirmation.plan.requests):
        verified = confirmation.verified.get(index)
        ratio = race.ratio_to_reference(index)
        compared = comparisons.get(index)
        rows.append(
            (
                f"{request.number}{' (reference)' if index == REFERENCE else ''}",
                format_number(request.known_rps),
                _rates_by_round(confirmation, index),
                format_number(confirmation.mean_rps(index)),
                _ratio_cell(confirmation, ratio),
                _ratio_cell(confirmation, compared.ratio if compared else None),
                "winner" if index == winner else _result(confirmation, compared),
                format_number(verified.sustained_rps) if verified else "",
                *([_comparison_p99(verified)] if has_latencies else []),
            )
        )
    note = [_noise(confirmation), *_conditions(confirmation, has_latencies)]
    return [
        "## Confirmation",
        confirmation_text(confirmation),
        markdown_table(header, rows),
        " ".join(note),
    ]


def _comparison_p99(verified: TrialResult | None) -> str:
    return format_number(verified.latency.comparison_p99_s) if verified else ""


def missing_curves(confirmation: Confirmation | None) -> str:
    """Return whose latency below the sustained rate is not measured; empty if none is missing."""
    if confirmation is None or not (missing := confirmation.missing_curves):
        return ""
    names = [
        f"trial {confirmation.plan.requests[index].number}"
        f"{' (the reference)' if index == REFERENCE else ''}"
        for index in sorted(missing)
    ]
    listed = " and of ".join(names)
    return (
        f"Not measured: the latency of {listed} at 50, 70 and 90 % of its rate. There was no time "
        "for it: a longer `search.time_budget_s` or `confirm.time_limit_s` permits it."
    )


def _ratio_cell(confirmation: Confirmation, ratio: Interval | None) -> str:
    if ratio is None:
        return ""
    ratio = _of_figure(confirmation, ratio)
    return f"{format_ratio(ratio.mean)} ({format_ratio_interval(ratio)})"


def _trial(confirmation: Confirmation, index: int) -> str:
    return f"Trial {confirmation.plan.requests[index].number}"


def _rate_of_winner(confirmation: Confirmation) -> str:
    """Return the rate of one more measurement of the winner, in a sentence."""
    winner, race = confirmation.winner, confirmation.race
    known_rps = confirmation.plan.requests[winner].known_rps
    searched = f"; the search measured {format_number(known_rps)} rps" if known_rps else ""
    rounds = "one round" if race.rounds == 1 else f"{race.rounds} rounds"
    subject = _trial(confirmation, winner)
    if (sustained := confirmation.sustained(winner)) is not None:
        return (
            f"Confirmed in {rounds}: {subject.lower()} sustains "
            f"{format_number(sustained.mean)} rps (95 % prediction interval for one more "
            f"measurement: {format_interval(sustained)} rps{searched})"
        )
    if (prediction := confirmation.prediction(winner)) is not None:
        return (
            f"{subject} answers {format_number(prediction.mean)} rps in a closed loop, visited in "
            f"{rounds} (95 % prediction interval for one more visit: "
            f"{format_interval(prediction)} rps{searched}). "
            f"{capitalized(confirmation.why_inconclusive)}"
        )
    mean_rps = confirmation.mean_rps(winner)
    rate = f"{format_number(mean_rps)} rps in a closed loop" if mean_rps else "no request"
    verified = confirmation.verified.get(winner)
    if verified and verified.sustained_rps:
        searched = f", and sustained {format_number(verified.sustained_rps)} rps{searched}"
    return f"{subject} answers {rate}, visited in {rounds}{searched}"


def _comparison_with_reference(confirmation: Confirmation) -> list[str]:
    """Return the ratio to what runs today, in sentences."""
    reference = f"the reference, trial {confirmation.plan.requests[REFERENCE].number}"
    race, winner = confirmation.race, confirmation.winner
    sentences = []
    if failed := race.estimates.failures.get(REFERENCE):
        visits = len(confirmation.visits(REFERENCE))
        failed_in = _failed_in(confirmation)
        sentences.append(f"{reference}, {failed_in} {failed} of {visits} visits".capitalize())
    elif not confirmation.rate_estimates.visit_count(REFERENCE):
        sentences.append(f"{reference}, has no visit that shows its rate".capitalize())
    if (ratio := confirmation.ratio) is not None:
        subject = winner if winner != REFERENCE else race.best()
        significance = "" if ratio.excludes_one else "; they are statistically indistinguishable"
        sentences.append(
            f"{_trial(confirmation, subject)} is {format_ratio(ratio.mean)} times as fast as "
            f"{reference} (95 % interval: {format_ratio_interval(ratio)}){significance}"
        )
    kind, score = confirmation.plan.objective.kind, confirmation.score_ratio
    if kind != "rate" and score is not None:
        figure = score.inverse
        times = f"{format_ratio(figure.mean)} times that of {reference}"
        bounds = format_ratio_interval(figure)
        sentences.append(f"Its {_FIGURES[kind]} is {times} (95 % interval: {bounds})")
    return sentences


def _failed_in(confirmation: Confirmation) -> str:
    has_limits = confirmation.plan.objective.has_limits
    return "failed or missed a limit in" if has_limits else "failed in"


def _comparison_with_winner(confirmation: Confirmation, compared: Comparison) -> str:
    """Return what is known of another finalist, in a sentence."""
    subject, ratio = _trial(confirmation, compared.index), compared.ratio
    name = _compared_figure(confirmation)
    winner = _trial(confirmation, confirmation.winner).lower()
    times = f"an unknown {name}"
    if ratio is not None:
        ratio = _of_figure(confirmation, ratio)
        times = f"{format_ratio(ratio.mean)} times the winner's {name}"
        times += f" (95 % interval: {format_ratio_interval(ratio)})"
    if compared.failed:
        visits = len(confirmation.visits(compared.index))
        return f"{subject} {_failed_in(confirmation)} {compared.failed} of {visits} visits"
    if ratio is None and compared.drop is None:
        return f"{subject} cannot be compared with {winner}: too few visits show how rates vary"
    if compared.is_indistinguishable:
        latencies = _latencies(confirmation, compared.index)
        return f"{subject} is statistically indistinguishable from {winner}: {times}{latencies}"
    if compared.drop is None:
        return f"{subject} differs from {winner}: {times}"
    result = f"is shown to be {_worse(confirmation)}" if compared.differs else "was dropped"
    return f"{subject} {result} after {compared.drop.rounds} rounds: {times}"


def _compared_figure(confirmation: Confirmation) -> str:
    """Return what the visits compare: the closed loops if no latency counts."""
    objective = confirmation.plan.objective
    return "throughput at full load" if objective.compares_capacities else _FIGURES[objective.kind]


def _of_figure(confirmation: Confirmation, ratio: Interval) -> Interval:
    """Return a ratio of scores as that of what the run optimizes: the score of a cost is 1 ÷ it."""
    return ratio if confirmation.plan.objective.maximizes_rate else ratio.inverse


def _latencies(confirmation: Confirmation, index: int) -> str:
    """Return the latencies of a finalist and the winner; an empty text if one is unknown."""
    pair = [confirmation.verified.get(i) for i in (index, confirmation.winner)]
    latencies_s = [r.latency.comparison_p99_s if r else None for r in pair]
    if None in latencies_s:
        return ""
    rate = format_number(confirmation.plan.requests[index].comparison_rps)
    ours, theirs = (format_number(seconds) for seconds in latencies_s)
    return f", and a p99 of {ours} s against {theirs} s at {rate} rps"


def _worse(confirmation: Confirmation) -> str:
    return "slower" if confirmation.plan.objective.maximizes_rate else "worse"


def _result(confirmation: Confirmation, compared: Comparison | None) -> str:
    if compared is None:
        return ""
    if compared.failed:
        return f"failed in {compared.failed} visits"
    if compared.drop is not None:
        result = _worse(confirmation) if compared.differs else "dropped"
        return f"{result}, after {compared.drop.rounds} rounds"
    if compared.ratio is None:
        return "not comparable"
    return "indistinguishable" if compared.is_indistinguishable else "differs"


def _rates_by_round(confirmation: Confirmation, index: int) -> str:
    texts = []
    for visits in confirmation.rounds:
        if index in visits:
            rate = visit_rps(visits[index], confirmation.plan.objective)
            texts.append("unknown" if rate is None else format_number(rate) if rate else "failed")
        else:
            texts.append("–")
    return ", ".join(texts)


def _noise(confirmation: Confirmation) -> str:
    """Return how the figures were computed, in sentences."""
    race, prior = confirmation.race, confirmation.prior
    sd = race.estimates.variance.value**0.5
    text = (
        f"Visits to one configuration vary with a standard deviation of {format_percent(sd, 1)}, "
        f"estimated from {confirmation.visit_count} visits"
    )
    if prior is not None:
        earlier = format_percent(prior.value**0.5, 1)
        text += f" and from earlier runs on this host ({earlier})"
    own_sd = race.estimates.reference_variance.value**0.5
    if confirmation.plan.finalists and own_sd > _NOISIER * sd:
        text += f". For the reference it is {format_percent(own_sd, 1)}"
        if race.estimates.is_reference_unsteady:
            text += ", because its speed varies within a visit"
    method = (
        "The rates of a round change together, so ratios are formed within rounds."
        if race.estimates.is_paired
        else "The rates of a round do not change together, so means are compared (Welch)."
    )
    if race.is_selection_separate:
        first = race.first_round(confirmation.winner)
        separate = (
            f"The first {first} rounds chose among the finalists; the others estimate their rates."
            if first
            else ""
        )
    else:
        separate = (
            "The same rounds chose the winner and estimate its rate, which is therefore on average "
            "too high."
        )
    return " ".join(part for part in (f"{text}.", method, separate) if part)


def _conditions(confirmation: Confirmation, has_latencies: bool) -> list[str]:
    """Return under which conditions the visits were made, in sentences."""
    comparison_rps = next(
        (r.comparison_rps for r in confirmation.plan.requests if r.comparison_rps), None
    )
    hosts = [r.host for visits in confirmation.rounds for r in visits.values()]
    sentences = []
    if has_latencies:
        rate = format_number(comparison_rps)
        sentences.append(f"The comparison rate is {rate} rps, with Poisson arrivals.")
    elif (for_rps := confirmation.plan.objective.for_rps) is not None:
        rate = format_number(for_rps)
        sentences.append(f"Each visit had a window at {rate} rps with Poisson arrivals.")
    if any(len(visits) < len(confirmation.plan.requests) for visits in confirmation.rounds):
        sentences.append("–: not visited in this round.")
    return [
        *sentences,
        f"The hypervisor took at most {_maximum(h.steal for h in hosts)} of the CPU time.",
        f"Other processes used at most {_maximum(h.other_cpu for h in hosts)}.",
    ]


def _maximum(shares: Iterable[float | None]) -> str:
    return format_percent(max((share or 0.0 for share in shares), default=0.0), 1)
