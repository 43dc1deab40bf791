"""What a run looks like while it runs: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from statistics import median
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.errors import first_line
from search.report.formatting import number
from search.report.summary import describe
from search.report.sweep_tables import SHOWN
from search.trial.load_result import LoadResult
from search.trial.observation import WindowSummary
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult, TrialState


class LiveView:
    """Shows the current trial, its phase and rate, the best against the baseline, time left.

    Args:
        console: where.
        trials: how many there will be at most.
        time_budget_s: how long it will take at most, if limited.
        plain: lines instead of a panel, for what is not a terminal.
        rounds: of the confirmation, where there is one.
    """

    def __init__(
        self,
        console: Console,
        trials: int,
        time_budget_s: float | None,
        plain: bool,
        rounds: int = 0,
    ):
        self._console, self._trials, self._budget_s = console, trials, time_budget_s
        self._rounds = rounds
        self._round: int | None = None
        self._is_stopping = False
        self._start = time.monotonic()
        self._task: TrialRequest | None = None
        self._phase, self._rate, self._phase_start = "start", 0.0, self._start
        self._best: TrialResult | None = None
        self._reference: TrialResult | None = None
        self._last: list[str] = []
        self._durations: list[float] = []
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
        """A trial was handed out."""
        self._task = request
        self.phase(request.number, "start", 0.0)
        if not self._live:
            settings = describe(request.config)
            self._say(f"trial {request.number} ({request.origin}): {settings}")

    def phase(self, number: int, name: str, rate_rps: float) -> None:
        """A trial is in this phase now."""
        if (name, rate_rps) != (self._phase, self._rate):
            self._phase, self._rate, self._phase_start = name, rate_rps, time.monotonic()

    def window(self, number: int, seen: WindowSummary) -> None:
        """A window of a trial has ended: its phase has said the rate."""

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """A trial was recorded."""
        self._best = best
        self._durations.append(result.duration_s)
        if result.origin in (TrialOrigin.DEFAULT, TrialOrigin.BASELINE):
            self._reference = result
        standing = "" if result.loads else f"; best {self._standing()}"
        self._tell(f"trial {result.number}: {_came(result)}", standing)

    def confirming(self, number: int, request: TrialRequest) -> None:
        """A trial's configuration is measured again, in this round of the confirmation."""
        self._task, self._round = request, number
        self.phase(request.number, "start", 0.0)

    def confirmed(self, number: int, result: TrialResult) -> None:
        """That measurement was recorded."""
        self._tell(f"round {number + 1}, trial {result.number}: {_came(result)}")

    def stopping(self) -> None:
        """The run was interrupted, and ends what is under way."""
        if not self._is_stopping and not self._live:
            self._say("stopping: the trial under way ends, what was measured is kept")
        self._is_stopping = True

    def _tell(self, line: str, more: str = "") -> None:
        if self._live:
            self._last = [*self._last[-7:], line]
        else:
            self._say(f"{line}{more}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        if self._task is not None:
            rate = f" at {self._rate:.1f} rps" if self._rate else ""
            done = f"trial {self._task.number}, {self._task.origin}"
            if self._round is None:
                done += f" (at most {self._trials} trials)"
            else:
                done += f", round {self._round + 1} of {self._rounds}"
            since = f"{self._phase}{rate}, {now - self._phase_start:.0f} s"
            table.add_row("now", f"{done}: {'stopping' if self._is_stopping else since}")
        table.add_row("best", self._standing())
        elapsed_s = now - self._start
        table.add_row("time", f"{elapsed_s / 60:.1f} min{self._left(elapsed_s)}")
        return Group(*[Text(line, overflow="ellipsis", no_wrap=True) for line in self._last], table)

    def _left(self, elapsed_s: float) -> str:
        """How long it may still take: by the budget, and by what trials took so far."""
        lefts = [] if self._budget_s is None else [self._budget_s - elapsed_s]
        if self._durations and self._task is not None and self._round is None:
            to_come = max(self._trials - self._task.number, 0)
            lefts.append(to_come * median(self._durations))
        return f", at most about {max(min(lefts), 0) / 60:.0f} min left" if lefts else ""

    def _standing(self) -> str:
        best, reference = self._best, self._reference
        if best is None or best.sustained_rps is None:
            return "none yet"
        text = f"{best.sustained_rps:.1f} rps (trial {best.number})"
        if reference is not None and reference.sustained_rps:
            times = best.sustained_rps / reference.sustained_rps
            text += f", {times:.1f} × the {reference.origin}'s {reference.sustained_rps:.1f}"
        return text


def _came(result: TrialResult) -> str:
    if result.loads:
        came = "; ".join(_figure(load) for load in result.loads)
    elif result.state is TrialState.COMPLETE:
        came = f"{result.sustained_rps:.1f} rps sustained, p99 {result.p99_s:.2f} s"
    else:
        came = f"{str(result.state).lower()}: {first_line(result.cause)}"
    return f"{came} ({result.duration_s:.0f} s)"


def _figure(load: LoadResult) -> str:
    """The one figure that says most of a load."""
    column = SHOWN[load.kind]
    unit = "s" if column.endswith("_s") else "rps"
    figure = f"{load.load}: {number(getattr(load, column)) or 'none'} {unit}"
    if load.kind == "sustained":
        return figure
    return f"{figure}, {load.answered} of {load.scheduled} answered"
