"""The share of the variance of what a run optimizes that each setting explains."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution

from search.environment import log_level
from search.trial.objective import Figures, Objective
from search.trial.result import TrialResult, TrialState

#: Minimum number of trials for the importance of settings: fewer name any setting by chance.
_MIN_TRIALS = 8


def importance_of(
    study: optuna.Study, settings: Mapping[str, BaseDistribution], objective: Objective
) -> dict[str, float]:
    """Return the share of the variance that each setting explains (PED-ANOVA).

    Of what the run optimizes: rates, p99 latencies at `goal.for_rps` or peaks of the memory, by
    the trials that measured it. The shares sum up to 1. Empty with too few of them, or if all have
    the same value.

    Args:
        settings: the space's dimensions by name. Trials outside of it, such as a baseline, are left
            out; those from before it was widened are not.
    """
    measured = [
        counted
        for trial in study.get_trials(deepcopy=False)
        if trial.params
        and (score := _measured_score(trial, objective))
        and (counted := _in_space(trial, settings, score)) is not None
    ]
    if len(measured) < _MIN_TRIALS or len({trial.value for trial in measured}) < 2:
        return {}
    names = [name for name in settings if len({t.params.get(name) for t in measured}) > 1]
    with log_level(["optuna"], logging.WARNING):
        scores = optuna.create_study(direction="maximize")
    try:
        with warnings.catch_warnings():
            # It warns of settings with few values, which few trials always have.
            warnings.simplefilter("ignore", UserWarning)
            scores.add_trials(measured)
            return dict(optuna.importance.get_param_importances(scores, params=names))
    except (ValueError, RuntimeError):
        return {}


def _in_space(
    trial: optuna.trial.FrozenTrial, settings: Mapping[str, BaseDistribution], score: float
) -> optuna.trial.FrozenTrial | None:
    """Return a trial of these dimensions with its score as the value; None if it is outside."""
    try:
        return optuna.trial.create_trial(
            params=trial.params, distributions=dict(settings), value=score
        )
    except ValueError:
        return None


def _measured_score(trial: optuna.trial.FrozenTrial, objective: Objective) -> float:
    """Return what a trial measured of the objective; 0 without it. See `Objective.score`."""
    if "result" not in trial.user_attrs:
        return 0.0
    result = TrialResult.from_dict(trial.user_attrs["result"])
    is_complete = result.state is TrialState.COMPLETE and not result.host_fault
    return objective.score(Figures.of([result])) if is_complete else 0.0
