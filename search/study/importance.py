"""The share of the rates' variance that each setting explains."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection

import optuna

from search.environment import log_level
from search.trial.result import TrialState

#: Minimum number of trials for the importance of settings.
_MIN_TRIALS = 4


def importance_of(study: optuna.Study, settings: Collection[str]) -> dict[str, float]:
    """Return the share of the rates' variance explained by each setting (PED-ANOVA).

    Only trials that sustained a rate count. The shares sum up to 1. Empty with too few
    of them, or if all have the same rate.

    Args:
        settings: names of the space's dimensions.
    """
    # Older runs stored an estimate as the value of a pruned trial, and 0 for a failed one.
    trials = [
        t
        for t in study.get_trials(deepcopy=False)
        if t.values and t.params and t.user_attrs.get("state") == TrialState.COMPLETE
    ]
    if len(trials) < _MIN_TRIALS or len({t.value for t in trials}) < 2:
        return {}
    names = [name for name in settings if len({t.params.get(name) for t in trials}) > 1]
    with log_level(["optuna"], logging.WARNING):
        measured = optuna.create_study(direction="maximize")
    measured.add_trials(trials)
    try:
        with warnings.catch_warnings():
            # It warns of settings with few values, which few trials always have.
            warnings.simplefilter("ignore", UserWarning)
            return dict(optuna.importance.get_param_importances(measured, params=names))
    except (ValueError, RuntimeError):
        return {}
