"""Run the trials of a study with Ray Tune."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, Self

import optuna
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher

from search.environment import log_level
from search.errors import ClusterError
from search.study.budget import Budget
from search.study.observer import StudyObserver
from search.study.progress import Progress, so_far, trying
from search.study.run_folder import Run
from search.study.storage import STORAGE_ERRORS
from search.study.store import StudyStore
from search.study.tensorboard import TensorBoardCallback
from search.trial.observation import WindowSummary
from search.trial.request import TrialRequest
from search.trial.result import TrialResult


class ExcludedFromSnapshots:
    """Pickles without state: Tune pickles it for its snapshots, which are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class StudySearcher(ExcludedFromSnapshots, Searcher):
    """Tune's searcher: takes configurations from the store, and records results in it.

    Args:
        may_start: returns whether another trial may start beside this number of running ones. If
            none may start and none is running, the search is finished.
        started: called with each request when its trial starts.
        finished: called with each result after the store has recorded it.
        folder_of: returns the folder of a trial's files by the trial's number.
        may_probe: returns whether the next trial beside this number of running ones may probe other
            configurations in its server.

    Attributes:
        error: why results cannot be recorded; Tune would continue without them.
    """

    def __init__(
        self,
        store: StudyStore,
        may_start: Callable[[int], bool],
        started: Callable[[TrialRequest], None],
        finished: Callable[[TrialResult], None],
        folder_of: Callable[[int], str],
        may_probe: Callable[[int], bool] = lambda running: False,
    ):
        # Tune would require the metric in every report, and most have no rate.
        super().__init__()
        self._store = store
        self._may_start, self._started, self._finished = may_start, started, finished
        self._folder_of, self._may_probe = folder_of, may_probe
        self._running: dict[str, tuple[optuna.trial.Trial, TrialRequest]] = {}
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """Return the next configuration as a Tune trial's config; None if Tune must ask again."""
        if self.error:
            return Searcher.FINISHED
        running = len(self._running)
        asked = self._store.ask(self._may_probe(running)) if self._may_start(running) else None
        if asked is None:
            # A running trial may have to be repeated.
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = asked
        _, request = asked
        self._started(request)
        return {**request.to_dict(), "folder": self._folder_of(request.number)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial's result; without one, the trial was stopped or lost its process."""
        try:
            self._record(*self._running.pop(trial_id), result, error)
        except (OSError, *STORAGE_ERRORS) as storage_error:
            self.error = self.error or storage_error

    def _record(
        self,
        trial: optuna.trial.Trial,
        request: TrialRequest,
        report: dict[str, Any] | None,
        has_error: bool,
    ) -> None:
        if report and "record" in report:
            result = TrialResult.from_dict(json.loads(report["record"]))
        elif has_error:
            result = TrialResult.process_lost(request)
        else:
            self._store.abandon(trial)
            return
        self._finished(self._store.tell(trial, result))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the store holds the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the store holds the state."""


class _Stopper(ExcludedFromSnapshots, tune.Stopper):
    """Stops all trials if the run was interrupted, or if nothing can be measured or recorded."""

    def __init__(
        self,
        budget: Budget,
        searcher: StudySearcher,
        observer: StudyObserver,
        placement_error: Callable[[], str | None],
    ):
        self._budget, self._searcher, self._observer = budget, searcher, observer
        self._placement_error = placement_error

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if is_interrupted := self._budget.interrupted.is_set():
            self._observer.stopping()
        if self._searcher.error is None and (reason := self._placement_error()):
            message = f"the cluster no longer has room for a trial: {reason}"
            self._searcher.error = ClusterError(message)
        return is_interrupted or self._searcher.error is not None


class _TuneCallback(ExcludedFromSnapshots, tune.Callback):
    """Passes the progress of trials to an observer."""

    def __init__(self, observer: StudyObserver):
        self._observer = observer

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "window" in result:
            self._observer.window(number, WindowSummary(**json.loads(result["window"])))
        if "phase" in result:
            left_s = result.get("left_s") or None
            self._observer.phase(number, result["phase"], result["rate_rps"], left_s)


def tune_trials(
    run: Run,
    store: StudyStore,
    budget: Budget,
    observer: StudyObserver,
    trainable: Any,
    max_concurrent: int,
    verbose: int = 0,
    placement_error: Callable[[], str | None] = lambda: None,
) -> None:
    """Run trials with Tune until the budget allows no more.

    Args:
        trainable: Tune's trainable with its resources; `TuneTrial`, or a substitute in benchmarks.
        max_concurrent: the maximum number of trials that run at the same time.
        verbose: Tune's verbosity.
        placement_error: returns why no trial can be placed in the cluster; None if one can.

    Raises:
        ClusterError: no trial can be placed in the cluster.
        OSError, StorageInternalError: a result could not be recorded.
    """

    may_stop_by_value = bool(run.spec().search.min_improvement_probability)

    def started(request: TrialRequest) -> None:
        store.record_spent(budget.spent_s)
        observer.started(request)
        observer.progress(
            Progress(
                trying(request, store.results, store.space, store.objective),
                so_far(store.results, store.objective),
                budget.left_s(),
                store.improvement_probability() if may_stop_by_value else None,
            )
        )

    def finished(result: TrialResult) -> None:
        store.record_spent(budget.spent_s)
        run.append(result)
        observer.finished(result, store.best)

    searcher = StudySearcher(
        store,
        budget.may_start_trial,
        started,
        finished,
        lambda number: str(run.trial_folder(number)),
        budget.may_probe,
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=max_concurrent,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.strftime('%H%M%S')}" if (run.folder / "tune").exists() else "tune",
            storage_path=str(run.folder),
            stop=_Stopper(budget, searcher, observer, placement_error),
            callbacks=[JsonLoggerCallback(), TensorBoardCallback(), _TuneCallback(observer)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=verbose,
        ),
    )
    # Tune's snapshots are not used, and a full disk is raised below.
    silenced = ["ray.tune.execution.experiment_state"]
    if not verbose:  # The trial's result reports the loss of its process.
        silenced.append("ray.tune.execution.tune_controller")
    with log_level(silenced, logging.CRITICAL):
        tuner.fit()
    if searcher.error:
        raise searcher.error
