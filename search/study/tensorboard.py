"""Write trials for TensorBoard, as they ended."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.logger import LoggerCallback
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from search.errors import first_line
from search.study.diff import flat
from search.trial.result import TrialResult, TrialState

_LOST = "failed: the trial process ended before it could report"
_STOPPED = "stopped before its end"


class TensorBoardCallback(LoggerCallback):
    """Writes each window while a trial runs, and its figures and its state when it has ended.

    A figure that was not measured is left out: a pruned or failed trial has no rate. The state
    with its reason is a text and a hyperparameter beside the settings.
    """

    def __init__(self) -> None:
        self._writers: dict[Any, SummaryWriter] = {}
        self._recorded: set[Any] = set()

    def log_trial_start(self, trial: Any) -> None:
        """Open the trial's file."""
        trial.init_local_path()
        self._writers[trial] = SummaryWriter(trial.local_path, flush_secs=30)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Write a window or the trial's result, if the report has one."""
        writer = self._writers[trial]
        if "window" in result:
            window = json.loads(result["window"])
            for name in ("offered_rps", "answered_rps", "p99_s"):
                if window.get(name) is not None:
                    writer.add_scalar(f"window/{name}", window[name], iteration)
        if "record" in result:
            self._recorded.add(trial)
            write_result(writer, TrialResult.from_dict(json.loads(result["record"])))
        writer.flush()

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Write the state of a trial without a result, and close its file."""
        writer = self._writers.pop(trial, None)
        if writer is None:
            return
        if trial not in self._recorded:
            writer.add_text("state", _LOST if failed else _STOPPED)
        self._recorded.discard(trial)
        writer.close()


def write_result(writer: SummaryWriter, result: TrialResult) -> None:
    """Write the figures, the state and the settings of a finished trial."""
    measured = figures(result)
    for name, value in measured.items():
        writer.add_scalar(name, value, 0)
    state = str(result.state).lower()
    is_complete = result.state is TrialState.COMPLETE
    reason = "" if is_complete else first_line(result.cause)
    writer.add_text("state", f"{state}: {reason}" if reason else state)
    settings = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in flat(result.config.to_dict()).items()
    }
    described = {**settings, "origin": str(result.origin), "state": state, "reason": reason}
    for summary in hparams(described, measured):
        writer.file_writer.add_summary(summary)


def figures(result: TrialResult) -> dict[str, float]:
    """Return what a trial measured, by name with unit; what is unknown is left out."""
    is_complete = result.state is TrialState.COMPLETE
    found = {
        "sustained_rps": result.sustained_rps if is_complete else None,
        "p99_s": result.p99_s if is_complete else None,
        "capacity_rps": result.capacity_rps or None,
        "peak_memory_mb": result.server.peak_memory_mb,
        "duration_s": result.duration_s,
    }
    if (target := result.latency.target) is not None and target.is_served:
        found["target_p99_s"] = target.p99_s
    return {name: float(value) for name, value in found.items() if value is not None}
