"""How a run reports its progress: observers, and events for callbacks and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from search.errors import first_line
from search.study.progress import Progress
from search.trial.observation import WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult


class StudyObserver(Protocol):
    """Receives the progress of a run; every call comes from the thread that runs the study."""

    def started(self, request: TrialRequest) -> None:
        """Called when a trial starts."""

    def progress(self, progress: Progress) -> None:
        """Called when a trial or a measurement of the confirmation starts."""

    def phase(self, number: int, name: str, rate_rps: float, left_s: float | None = None) -> None:
        """Called when a trial enters a phase, or continues it at another rate.

        Args:
            left_s: the expected time until the end of the trial, once it is known, seconds.
        """

    def window(self, number: int, window: WindowSummary) -> None:
        """Called when a window of a trial ends."""

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """Called when a trial was recorded."""

    def confirming(self, round_number: int, request: TrialRequest) -> None:
        """Called when a configuration is measured again, in this round of the confirmation."""

    def confirmed(self, round_number: int, result: TrialResult) -> None:
        """Called when that measurement was recorded."""

    def stopping(self) -> None:
        """Called when the run was interrupted; the running trial is stopped."""


@dataclass(frozen=True)
class StudyEvent:
    """One step of a run.

    Attributes:
        kind: trial, progress, phase, window, result, round, confirmed or stopping.
        data: plain JSON data.
            trial: number, origin, settings
            progress: the fields of `Progress`
            phase: number, name, rate_rps, left_s (expected seconds until the trial's end, or null)
            window: number, offered_rps, answered_rps, failed, p99_s
            result: best (number of the best trial) and the fields of `summary_of`
            round: round, number
            confirmed: round and the fields of `summary_of`
    """

    kind: str
    data: Mapping[str, Any]


class EventObserver:
    """A `StudyObserver` that turns calls into events; each phase is reported once.

    Args:
        emit: receives each event.
    """

    def __init__(self, emit: Callable[[StudyEvent], None]):
        self._emit_event = emit
        self._phase: tuple[int, str, float, float | None] | None = None
        self._is_stopping = False

    def _emit(self, kind: str, **data: Any) -> None:
        self._emit_event(StudyEvent(kind, data))

    def started(self, request: TrialRequest) -> None:
        """See `StudyObserver.started`."""
        settings = request.config.to_dict()
        self._emit("trial", number=request.number, origin=request.origin, settings=settings)

    def progress(self, progress: Progress) -> None:
        """See `StudyObserver.progress`."""
        self._emit("progress", **asdict(progress))

    def phase(self, number: int, name: str, rate_rps: float, left_s: float | None = None) -> None:
        """See `StudyObserver.phase`."""
        if self._phase != (now := (number, name, rate_rps, left_s)):
            self._phase = now
            self._emit("phase", number=number, name=name, rate_rps=rate_rps, left_s=left_s)

    def window(self, number: int, window: WindowSummary) -> None:
        """See `StudyObserver.window`."""
        self._emit("window", number=number, **asdict(window))

    def finished(self, result: TrialResult, best: TrialResult | None) -> None:
        """See `StudyObserver.finished`."""
        self._emit("result", best=best.number if best else None, **summary_of(result))

    def confirming(self, round_number: int, request: TrialRequest) -> None:
        """See `StudyObserver.confirming`."""
        self._emit("round", round=round_number, number=request.number)

    def confirmed(self, round_number: int, result: TrialResult) -> None:
        """See `StudyObserver.confirmed`."""
        self._emit("confirmed", round=round_number, **summary_of(result))

    def stopping(self) -> None:
        """See `StudyObserver.stopping`."""
        if not self._is_stopping:
            self._is_stopping = True
            self._emit("stopping")


def summary_of(result: TrialResult) -> dict[str, Any]:
    """Return the figures of a trial that a list of trials shows."""
    return {
        "number": result.number,
        "origin": result.origin,
        "state": result.state,
        "settings": result.config.to_dict(),
        "sustained_rps": result.sustained_rps,
        "upper_rps": result.rate.upper_rps,
        "capacity_rps": result.capacity_rps,
        "p99_s": result.p99_s,
        "target_p99_s": result.latency.target.p99_s if result.latency.target else None,
        "peak_memory_mb": result.server.peak_memory_mb,
        "duration_s": result.duration_s,
        "cause": first_line(result.cause),
    }
