"""Show the progress of a run: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from statistics import median
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadgen.formatting import format_percent, format_rps
from loadgen.rate.goal import Depth
from search.answer.gain import search_gain
from search.errors import first_line
from search.report.formatting import format_number, format_settings
from search.report.sweep_tables import MAIN_COLUMN
from search.study.progress import Progress
from search.trial.load_result import LoadResult
from search.trial.observation import WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TargetRecord, TrialResult, TrialState


class LiveView:
    """A `StudyObserver` that shows the current trial, the best so far and the time left.

    Args:
        trials: maximum number of trials.
        time_budget_s: limit of the run, seconds; None if there is none.
        plain: print lines instead of a panel.
        rounds: rounds of the confirmation; 0 without one.
    """

    def __init__(
        self,
        console: Console,
        trials: int,
        time_budget_s: float | None,
        plain: bool,
        rounds: int = 0,
    ):
        self._console = console
        self._max_trials, self._time_budget_s, self._rounds = trials, time_budget_s, rounds
        self._start = time.monotonic()
        self._request: TrialRequest | None = None
        self._round: int | None = None
        self._phase, self._rate_rps, self._phase_start = "start", 0.0, self._start
        self._trial_end_s: float | None = None
        self._progress, self._progress_s = Progress(""), self._start
        self._is_stopping = False
        self._best: TrialResult | None = None
        self._reference: TrialResult | None = None
        self._last_lines: list[str] = []
        self._durations_s: list[float] = []
        self._live = None if plain else Live(console=console, get_renderable=self._render)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def started(self, request: TrialRequest) -> None:
        """See `StudyObserver.started`."""
        self._request = request
        self._trial_end_s = None
        self.phase(request.number, "start", 0.0)
        if not self._live:
            settings = format_settings(request.config)
            self._print(f"trial {request.number} ({request.origin}): {settings}")

    def progress(self, progress: Progress) -> None:
        """See `StudyObserver.progress`."""
        if not self._live and (text := progress_text(self._progress, progress)):
            self._print(text)
        self._progress, self._progress_s = progress, time.monotonic()

    def phase(self, number: int, name: str, rate_rps: float, left_s: float | None = None) -> None:
        """See `StudyObserver.phase`."""
        if left_s is not None and self._trial_end_s is None:
            self._trial_end_s = time.monotonic() + left_s
            if not self._live:
                self._print(f"trial {number}: about {left_s:.0f} s left")
        if (name, rate_rps) != (self._phase, self._rate_rps):
            self._phase, self._rate_rps, self._phase_start = name, rate_rps, time.monotonic()

    def window(self, number: int, window: WindowSummary) -> None:
        """Do nothing: the phase shows the rate."""

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """See `StudyObserver.finished`."""
        self._best = best
        self._durations_s.append(result.duration_s)
        if result.origin.is_reference:
            self._reference = result
        best_text = "" if result.loads else f"; best {self._best_text()}"
        self._add_line(f"trial {result.number}: {_result_text(result)}", best_text)

    def confirming(self, round_number: int, request: TrialRequest) -> None:
        """See `StudyObserver.confirming`."""
        self._request, self._round = request, round_number
        self._trial_end_s = None
        self.phase(request.number, "start", 0.0)

    def confirmed(self, round_number: int, result: TrialResult) -> None:
        """See `StudyObserver.confirmed`."""
        self._add_line(f"{self._step_text()}, trial {result.number}: {_result_text(result)}")

    def stopping(self) -> None:
        """See `StudyObserver.stopping`."""
        if not self._is_stopping and not self._live:
            self._print("stopping the running trial; finished trials are kept")
        self._is_stopping = True

    def _add_line(self, line: str, plain_suffix: str = "") -> None:
        if self._live:
            self._last_lines = [*self._last_lines[-7:], line]
        else:
            self._print(f"{line}{plain_suffix}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        if self._request is not None:
            table.add_row("now", self._current_text(self._request, now - self._phase_start))
        if self._progress.trying:
            table.add_row("why", self._progress.trying)
        if (chance := self._progress.improvement_probability) is not None:
            table.add_row("chance", f"{format_percent(chance)} of a better configuration")
        table.add_row("best", self._best_text())
        elapsed_s = now - self._start
        table.add_row("time", f"{elapsed_s / 60:.1f} min{self._time_left_text(elapsed_s)}")
        lines = [Text(line, overflow="ellipsis", no_wrap=True) for line in self._last_lines]
        return Group(*lines, table)

    @property
    def _is_verification(self) -> bool:
        """Whether the step of the confirmation verifies a rate; a visit is shallower."""
        return self._request is not None and self._request.depth is Depth.FULL

    def _step_text(self) -> str:
        """Return the step of the confirmation that is running or has just ended."""
        return "verification" if self._is_verification else f"round {(self._round or 0) + 1}"

    def _current_text(self, request: TrialRequest, phase_s: float) -> str:
        text = f"trial {request.number}, {request.origin}"
        if self._round is None:
            text += f" (at most {self._max_trials} trials)"
        else:
            text += f", {self._step_text()}"
            text += "" if self._is_verification else f" of {self._rounds}"
        if self._is_stopping:
            return f"{text}: stopping"
        rate = f" at {format_rps(self._rate_rps)}" if self._rate_rps else ""
        left = ""
        if self._trial_end_s is not None:
            left = f", about {max(self._trial_end_s - time.monotonic(), 0.0):.0f} s left"
        return f"{text}: {self._phase}{rate}, {phase_s:.0f} s{left}"

    def _time_left_text(self, elapsed_s: float) -> str:
        """Return the time left: as the run expects it, else by the budget and the trials."""
        if (left_s := self._progress.left_s) is not None:
            left_s = max(left_s - (time.monotonic() - self._progress_s), 0.0)
            return f", about {_duration(left_s)} left"
        estimates_s = [] if self._time_budget_s is None else [self._time_budget_s - elapsed_s]
        if self._durations_s and self._request is not None and self._round is None:
            trials_left = max(self._max_trials - self._request.number, 0)
            estimates_s.append(trials_left * median(self._durations_s))
        if not estimates_s:
            return ""
        return f", up to about {max(min(estimates_s), 0) / 60:.0f} min left"

    def _best_text(self) -> str:
        best, reference = self._best, self._reference
        if best is None or best.sustained_rps is None:
            return "none yet"
        target = best.latency.target
        at_target = f"{_target_text(target)}, " if target else ""
        text = f"{at_target}{format_rps(best.sustained_rps)} (trial {best.number})"
        if reference is not None and (gain := search_gain(best, reference)) is not None:
            text += (
                f", {gain.ratio.mean:.1f} × the {reference.origin}'s {reference.sustained_rps:.1f}"
            )
        return text


def progress_text(before: Progress, now: Progress) -> str:
    """Return the line of a progress; what is as before is left out."""
    parts = [] if now.trying == before.trying else [now.trying]
    if now.so_far is not None and now.so_far != before.so_far:
        parts.append(f"so far: {now.so_far}")
    if now.improvement_probability is not None:
        chance = format_percent(now.improvement_probability)
        parts.append(f"probability of a better configuration: {chance}")
    if now.left_s is not None:
        parts.append(f"about {_duration(now.left_s)} left")
    return "; ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _result_text(result: TrialResult) -> str:
    if result.loads:
        text = "; ".join(_load_text(load) for load in result.loads)
    elif result.state is TrialState.COMPLETE and result.sustained_rps is None:
        # A visit of the confirmation estimates the capacity, and verifies no rate.
        text = f"capacity of about {format_rps(result.capacity_rps or 0)}"
    elif result.state is TrialState.COMPLETE:
        text = f"{format_rps(result.sustained_rps or 0.0)} sustained, p99 {result.p99_s or 0:.2f} s"
        if result.latency.target is not None:
            text += f"; {_target_text(result.latency.target)}"
    else:
        text = f"{str(result.state).lower()}: {first_line(result.cause)}"
    return f"{text} ({result.duration_s:.0f} s)"


def _target_text(target: TargetRecord) -> str:
    """Return the latency at the rate that the deployment gets."""
    if not target.is_served or target.p99_s is None:
        return f"{target.rate_rps:.4g} rps not served"
    return f"p99 {target.p99_s:.3f} s at {target.rate_rps:.4g} rps"


def _load_text(load: LoadResult) -> str:
    """Return the main figure of a load."""
    column = MAIN_COLUMN[load.kind]
    unit = "s" if column.endswith("_s") else "rps"
    text = f"{load.load}: {format_number(getattr(load, column)) or 'none'} {unit}"
    if load.kind == "sustained":
        return text
    return f"{text}, {load.answered} of {load.scheduled} answered"
