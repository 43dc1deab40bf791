"""What a run came to, as tables: on the terminal, report.md, report.html, trials.csv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadgen.rate.result import StopReason
from search.errors import first_line
from search.report.csv_export import trial_frame
from search.report.formatting import markdown, number, span
from search.report.html_report import page
from search.report.plots import plots
from search.report.sweep_tables import held_settings, tables
from search.study.confirm import Confirmation
from search.study.intervals import mean_interval, prediction_interval
from search.study.outcome import Outcome
from search.study.run_folder import Run
from search.trial.result import PHASES, TrialResult, TrialState
from serving.config import ServerConfig

#: Eleven columns fit into 80 characters only without rules between them.
_TIGHT: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0)}
SETTINGS = (
    ("workers", "workers"),
    ("batch_size", "batch"),
    ("max_batch_delay_ms", "delay"),
    ("netty_threads", "netty"),
    ("netty_client_threads", "client"),
    ("mkl_threads", "mkl"),
)


def write_report(found: Outcome) -> None:
    """Write report.md, report.html and trials.csv into the run's folder."""
    folder = found.run.folder
    trial_frame(found.results).to_csv(folder / "trials.csv", index=False)
    is_sweep = found.spec.sweep is not None
    text = "\n\n".join(_sweep_sections(found) if is_sweep else _sections(found)) + "\n"
    (folder / "report.md").write_text(text)
    (folder / "report.html").write_text(page(found.run.name, text, plots(found)))


def _sweep_sections(found: Outcome) -> list[str]:
    failed = [r for r in found.results if r.state is TrialState.FAILED]
    held = ", ".join(f"{name}={value}" for name, value in held_settings(found.results).items())
    return [
        f"# {found.run.name}",
        ending(found),
        f"Everywhere: {held or 'nothing set'}.",
        "Each cell is the median over the repeats, each in a fresh server, with the least and "
        "the greatest; bold if it is better with 95 % confidence than every other point that "
        "answered everything in each of several repeats. A request that failed or was not sent "
        "counts in the latencies as the time-out at least.",
        *(
            part
            for table in tables(found.results)
            for part in (f"## {table.kind}", table.markdown())
        ),
        *_bullets("## Failed", [(r.number, [first_line(r.cause)]) for r in failed]),
        *_bullets("## Warnings", [(r.number, _warnings_of_loads(r)) for r in found.results]),
        "## Where",
        markdown(("what", "value"), _where(found.run)),
    ]


def _sections(found: Outcome) -> list[str]:
    header, rows = _rows(found.results)
    importance = [(name, f"{share:.0%}") for name, share in found.importance.items()]
    return [
        f"# {found.run.name}",
        headline(found),
        ending(found),
        *_confirmation(found),
        "Rates of trials are their own, each measured once and unconfirmed: "
        "the best of many noisy numbers is on average too high.",
        "## Trials",
        markdown(header, rows),
        _spent(found.results),
        *_bullets(
            "## Why they are slow or fast", [(r.number, r.explanations) for r in found.results]
        ),
        *_bullets("## Warnings", [(r.number, r.warnings) for r in found.results]),
        "## Importance of each setting",
        markdown(("setting", "share of the rates' variation"), importance)
        if importance
        else "Too few trials were measured to tell.",
        "## Where",
        markdown(("what", "value"), _where(found.run)),
    ]


def render(found: Outcome, explained: Sequence[TrialResult] | None = None) -> RenderableType:
    """The same for a terminal; it fits 80 columns.

    Args:
        explained: the trials that are explained; the best and the reference where not given.
    """
    if found.spec.sweep is not None:
        failed = [r for r in found.results if r.state is TrialState.FAILED]
        return Group(
            *[table.rich() for table in tables(found.results)],
            *[Text(f"Trial {r.number} failed: {first_line(r.cause)}") for r in failed],
            Text(ending(found)),
        )
    if explained is None:
        both = {r.number: r for r in (found.reference, found.chosen) if r}
        explained = list(both.values())
    table = Table(title=f"Trials of {found.run.name}", title_justify="left", **_TIGHT)
    table.add_column("#", justify="right")
    table.add_column("why")
    for title in (*(title for _, title in SETTINGS), "rps", "p99 s", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in found.results:
        rate = number(result.sustained_rps) or str(result.state).lower()
        settings = [_setting(getattr(result.config, name)) for name, _ in SETTINGS]
        row = (str(result.number), str(result.origin), *settings, rate, number(result.p99_s))
        is_best = found.chosen is not None and result.number == found.chosen.number
        style = "bold green" if is_best else ""
        table.add_row(*row, _seconds(result), style=style)
    failed = [r for r in found.results if r.state is TrialState.FAILED]
    importance = ", ".join(f"{name} {share:.0%}" for name, share in found.importance.items())
    return Group(
        table,
        Text("seconds: start/warm-up/incumbent probe/narrowing/stop", style="dim"),
        *[Text(f"Trial {r.number} failed: {first_line(r.cause)}") for r in failed],
        Text(headline(found), style="bold"),
        *([Text(confirmed(found.confirmation), style="bold")] if found.confirmation else []),
        *[
            Text(f"Trial {r.number}: {'; '.join(r.explanations)}.")
            for r in explained
            if r.explanations
        ],
        *[
            Text(f"Trial {r.number}, warning: {warning}.")
            for r in explained
            for warning in r.warnings
        ],
        *[Text(line) for line in (_spent(found.results),) if line],
        Text(f"Importance: {importance or 'too few trials to tell'}."),
        Text(ending(found)),
    )


def ending(found: Outcome) -> str:
    """Why the run ended, and what of its confirmation is missing."""
    if not found.reason:
        return "The run has not ended."
    sentence = f"The run ended because {found.reason}."
    wanted = found.spec.confirm
    made = found.confirmation.rounds.count if found.confirmation else 0
    if wanted is not None and made < wanted.rounds and not found.failed:
        sentence += f" Of the confirmation's {wanted.rounds} rounds {made or 'none'} were measured."
    return " ".join([sentence, *[f"{note}." for note in found.notes]])


def headline(found: Outcome) -> str:
    """Best against baseline, in a sentence or two."""
    best, reference = found.best, found.reference
    if not found.results:
        return "Nothing was measured to its end yet."
    if best is None:
        return "No configuration sustained any rate."
    title = "The search's best" if found.confirmation else "Best"
    sentence = (
        f"{title}: trial {best.number} sustains {number(best.sustained_rps)} rps at 100 % success "
        f"({describe(best.config)}), p99 {number(best.p99_s)} s."
    )
    if reference is None or reference.number == best.number:
        return sentence
    name = f"The {reference.origin} configuration (trial {reference.number})"
    if not reference.sustained_rps:
        return f"{sentence} {name} sustained none: {first_line(reference.cause)}."
    ratio = (best.sustained_rps or 0.0) / reference.sustained_rps
    return f"{sentence} {name} sustains {number(reference.sustained_rps)} rps: {ratio:.1f} times."


def _warnings_of_loads(result: TrialResult) -> list[str]:
    return [f"{load.load}: {warning}" for load in result.loads for warning in load.warnings]


def confirmed(found: Confirmation) -> str:
    """What the confirmation says of its winner, in a few sentences."""
    rounds, requests, winner = found.rounds, found.plan.requests, found.winner
    request = requests[winner]
    sentences = []
    served = rounds.served(winner)
    expected = prediction_interval(served)
    if expected is None:
        rate = f"{number(served[0])} rps" if served else "no rate"
        in_rounds = "one round" if rounds.count == 1 else f"{rounds.count} rounds"
        sentences.append(f"Trial {request.number} sustains {rate}, measured again in {in_rounds}")
    else:
        sentences.append(
            f"Confirmed in {rounds.count} rounds: trial {request.number} sustains "
            f"{number(expected.mean)} rps, and one more measurement of it "
            f"{span(expected)} with 95 % probability (its search said {number(request.known_rps)})"
        )
    if winner != 0:
        ratio = mean_interval(rounds.ratios(winner))
        against = f"the reference, trial {requests[0].number}"
        lost = rounds.rates(0).count(0.0)
        if not rounds.served(0):
            sentences.append(f"{against}, sustained no rate".capitalize())
        elif lost:
            sentences.append(f"{against}, sustained no rate in {lost} of the rounds".capitalize())
        if ratio is not None:
            told = "" if ratio.excludes_one else ": they are not told apart"
            sentences.append(f"It is {ratio.mean:.2f} times {against} ({span(ratio, '.2f')}){told}")
    if served and (failed := rounds.rates(winner).count(0.0)):
        sentences.append(f"It sustained no rate in {failed} of {rounds.count} rounds")
    for other in rounds.indistinguishable_from(winner, found.plan.finalists):
        faster, slower = rounds.comparison_p99_s(winner), rounds.comparison_p99_s(other)
        sentences.append(
            f"Trial {requests[other].number} is not told apart from it by its rate: p99 "
            f"{number(slower)} s against {number(faster)} s at {number(request.comparison_rps)} rps"
        )
    return ". ".join(sentences) + "."


def _confirmation(found: Outcome) -> list[str]:
    """The confirmation's part of report.md."""
    if (told := found.confirmation) is None:
        return []
    rounds = told.rounds
    header = (
        *("trial", "search's own rps", "rps by round", "mean", "one more measurement, 95 %"),
        *("÷ reference", "95 %", "p99 s at the common rate", "failed there"),
    )
    rows = []
    for index, request in enumerate(told.plan.requests):
        expected = prediction_interval(rounds.served(index))
        ratio = mean_interval(rounds.ratios(index)) if index else None
        failed = [
            r.latency.comparison_failed
            for r in rounds.results[index]
            if r.latency.comparison_failed is not None
        ]
        rows.append(
            (
                f"{request.number}{' (reference)' if index == 0 else ''}",
                number(request.known_rps),
                ", ".join(number(r.sustained_rps) or "none" for r in rounds.results[index]),
                number(expected.mean) if expected else "",
                span(expected),
                f"{ratio.mean:.2f}" if ratio else "",
                span(ratio, ".2f"),
                number(rounds.comparison_p99_s(index)),
                str(sum(failed)) if failed else "",
            )
        )
    common = next(
        (request.comparison_rps for request in told.plan.requests if request.comparison_rps), None
    )
    shares = [r for row in rounds.results for r in row]
    about = (
        f"The common rate is {number(common)} rps, of Poisson arrivals. Meanwhile the hypervisor "
        f"took {_most(r.host.steal for r in shares)} of the CPU time at most, other processes "
        f"{_most(r.host.other_cpu for r in shares)}."
    )
    return ["## Confirmation", confirmed(told), markdown(header, rows), about]


def _most(values: Iterable[float | None]) -> str:
    return f"{max((value or 0.0 for value in values), default=0.0):.1%}"


def describe(config: ServerConfig) -> str:
    """The settings that are set, in a line."""
    parts = []
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            parts += [f"{key}={text}" for key, text in value.items()]
        else:
            parts.append(f"{name}={value}")
    return ", ".join(parts) or "nothing set"


def _rows(results: list[TrialResult]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = (
        *("trial", "why"),
        *(title for _, title in SETTINGS),
        *("other settings", "state", "sustained rps", "not above", "width", "capacity", "p99 s"),
        *("success by batch ≥", "s", "start/warm-up/probe/narrowing/stop"),
        *(("host",) if (several := len({r.host.name for r in results}) > 1) else ()),
        "cause",
    )
    rows = []
    for result in results:
        bound = result.rate.success_bound_by_batch
        extra = {k: v for k, v in result.config.to_dict().items() if k not in dict(SETTINGS)}
        cause = "" if result.rate.stop_reason is StopReason.CONVERGED else first_line(result.cause)
        rows.append(
            (
                str(result.number),
                str(result.origin),
                *(_setting(getattr(result.config, name)) for name, _ in SETTINGS),
                ", ".join(f"{key}={value}" for key, value in extra.items()),
                str(result.state),
                number(result.sustained_rps),
                number(result.rate.upper_rps),
                f"{result.rate.width:.0%}" if result.rate.width else "",
                number(result.capacity_rps),
                number(result.p99_s),
                f"{bound:.1%}" if bound else "",
                f"{result.duration_s:.0f}",
                _seconds(result),
                *((result.host.name,) if several else ()),
                cause,
            )
        )
    return header, rows


def _seconds(result: TrialResult) -> str:
    """Where a trial's seconds went; of an older record all in one."""
    if not result.timing.phases_s:
        return f"{result.duration_s:.0f}"
    return "/".join(
        f"{result.timing.phases_s[name]:.0f}" if name in result.timing.phases_s else "–"
        for name in PHASES
    )


def _spent(results: Sequence[TrialResult]) -> str:
    """What the trials took, and how much of it went to those that could not win."""
    total_s = sum(r.duration_s for r in results)
    lost_s = sum(r.duration_s for r in results if r.state is not TrialState.COMPLETE)
    if not total_s:
        return ""
    share = lost_s / total_s
    return f"Of the trials' {total_s:.0f} s, {share:.0%} went to those pruned or failed."


def _bullets(title: str, sentences: Sequence[tuple[int, Sequence[str]]]) -> list[str]:
    lines = [f"- trial {number}: {'; '.join(told)}" for number, told in sentences if told]
    return [title, "\n".join(lines)] if lines else []


def _where(run: Run) -> list[tuple[str, str]]:
    recorded = run.recorded()
    parts = ("host", "versions", "placement")
    facts = {name: value for part in parts for name, value in recorded.get(part, {}).items()}
    return [(name, str(value)) for name, value in facts.items()]


def _setting(value: int | None) -> str:
    return "–" if value is None else str(value)
