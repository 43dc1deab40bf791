"""The responses that show trials."""

from __future__ import annotations

import json
from pathlib import Path

from search.report.trial_plots import trial_figures
from search.service.views import TrialDetailView, TrialView
from search.study.observer import summary_of
from search.study.run_folder import Run
from search.trial.result import TrialResult

#: Maximum length of a log in a response.
_LOG_CHARACTERS = 1 << 15


def trial_view(result: TrialResult) -> TrialView:
    """Return the view of a trial in a list."""
    return TrialView(**summary_of(result))


def trial_detail_view(run: Run, result: TrialResult) -> TrialDetailView:
    """Return the full view of a trial; missing files are empty texts."""
    folder = run.trial_folder(result.number)
    names = ("goodput_rps", "scheduled", "succeeded", "errors", "latency_s", "server")
    measured = run.windows(result.number)
    drawn = trial_figures(measured, result.timing.phases_s)
    windows = [
        {
            "offered_rps": window["schedule"].get("rate_rps"),
            **{name: window[name] for name in names},
        }
        for window in measured
    ]
    return TrialDetailView(
        **summary_of(result),
        explanations=list(result.explanations),
        record=result.to_dict(),
        config_properties=_text(folder / "config.properties"),
        default_properties=_text(run.trial_folder(0) / "config.properties"),
        environment=_text(folder / "environment"),
        windows=windows,
        figures={name: json.loads(plot.to_json()) for name, plot in drawn.items()},
        probes=run.probes(result.number),
        log=_text(folder / "torchserve.log")[-_LOG_CHARACTERS:],
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
