"""Ray Tune over the study."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, Self

import optuna
from ray import tune
from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback
from ray.tune.search import Searcher

from search.environment import log_level
from search.errors import ClusterError
from search.study.budget import Budget
from search.study.observer import StudyObserver
from search.study.run_folder import Run
from search.study.store import STORAGE_ERRORS, StudyStore
from search.trial.observation import WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult
from servetune.errors import FailureKind


class ExcludedFromSnapshots:
    """Belongs to the driver: Tune's snapshots, which nothing is restored from, leave it empty."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class StudySearcher(ExcludedFromSnapshots, Searcher):
    """Tune's searcher: asks the study, and tells it.

    Args:
        study: the only truth.
        may_start: whether another trial may start beside so many; where none may beside none, the
            search is finished.
        started, finished: are told of each trial as it starts and after the study was told.
        folder_of: where a trial's files belong, by its number.
    """

    def __init__(
        self,
        study: StudyStore,
        may_start: Callable[[int], bool],
        started: Callable[[TrialRequest], None],
        finished: Callable[[TrialResult], None],
        folder_of: Callable[[int], str],
    ):
        super().__init__(metric="sustained_rps", mode="max")
        self._study = study
        self._may_start, self._started, self._finished = may_start, started, finished
        self._folder_of = folder_of
        self._running: dict[str, tuple[optuna.trial.Trial, TrialRequest]] = {}
        #: Why nothing more can be recorded; Tune itself would go on over it.
        self.broken: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next configuration, as a Tune trial's config; None where it is too early to tell."""
        if self.broken:
            return Searcher.FINISHED
        asked = self._study.ask() if self._may_start(len(self._running)) else None
        if asked is None:
            # What runs may yet have to be repeated.
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = asked
        request = asked[1]
        self._started(request)
        return {**request.to_dict(), "folder": self._folder_of(request.number)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study; a trial that ended without a result was stopped, or lost its process."""
        try:
            self._end(*self._running.pop(trial_id), result, error)
        except (OSError, *STORAGE_ERRORS) as broken:
            self.broken = self.broken or broken

    def _end(
        self,
        trial: optuna.trial.Trial,
        request: TrialRequest,
        result: dict[str, Any] | None,
        error: bool,
    ) -> None:
        if result and "record" in result:
            told = TrialResult.from_dict(json.loads(result["record"]))
        elif error:
            told = TrialResult.failed(
                request,
                FailureKind.TRIAL_PROCESS_LOST,
                "trial process lost: it ended before it could report",
                host_fault=True,
            )
        else:
            self._study.abandon(trial)
            return
        self._study.tell(trial, told)
        self._finished(told)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only truth."""


class _Stopper(ExcludedFromSnapshots, tune.Stopper):
    """Stops all where the run was interrupted, or nothing can be measured or recorded any more."""

    def __init__(
        self,
        budget: Budget,
        searcher: StudySearcher,
        observer: StudyObserver,
        lost: Callable[[], str | None],
    ):
        self._budget, self._searcher, self._watcher = budget, searcher, observer
        self._lost = lost

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if is_over := self._budget.interrupted.is_set():
            self._watcher.stopping()
        if self._searcher.broken is None and (why := self._lost()):
            self._searcher.broken = ClusterError(
                f"the cluster has no room for a trial any more: {why}"
            )
        return is_over or self._searcher.broken is not None


class _TuneCallback(ExcludedFromSnapshots, tune.Callback):
    def __init__(self, observer: StudyObserver):
        self._watcher = observer

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "window" in result:
            self._watcher.window(number, WindowSummary(**json.loads(result["window"])))
        if "phase" in result:
            self._watcher.phase(number, result["phase"], result["rate_rps"])


def tune_trials(
    run: Run,
    study: StudyStore,
    budget: Budget,
    observer: StudyObserver,
    trainable: Any,
    at_once: int,
    verbose: int = 0,
    lost: Callable[[], str | None] = lambda: None,
) -> None:
    """Let Tune run trials for as long as the budget allows.

    Args:
        trainable: Tune's, with what it needs of the cluster; `TuneTrial` but in benchmarks.
        at_once: how many run at the same time.
        verbose: Tune's own.
        lost: why no trial can be placed any more.
    """

    def started(request: TrialRequest) -> None:
        study.spend(budget.spent_s)
        observer.started(request)

    def finished(result: TrialResult) -> None:
        study.spend(budget.spent_s)
        run.append(result)
        observer.finished(result, study.best)

    searcher = StudySearcher(
        study,
        budget.may_start,
        started,
        finished,
        lambda number: str(run.trial_folder(number)),
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=at_once,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.strftime('%H%M%S')}" if (run.folder / "tune").exists() else "tune",
            storage_path=str(run.folder),
            stop=_Stopper(budget, searcher, observer, lost),
            callbacks=[JsonLoggerCallback(), TBXLoggerCallback(), _TuneCallback(observer)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=verbose,
        ),
    )
    # Nothing is restored from Tune's own record of its state, and a full disk is reported below.
    quiet = ["ray.tune.execution.experiment_state"]
    if not verbose:  # The loss of a trial's process is its result's cause.
        quiet.append("ray.tune.execution.tune_controller")
    with log_level(quiet, logging.CRITICAL):
        tuner.fit()
    if searcher.broken:
        raise searcher.broken
