"""The trials that wait in an Optuna study: which configuration is measured next."""

from __future__ import annotations

import warnings

import optuna
from optuna.trial import TrialState as OptunaTrialState

from search.spec.space import Space
from search.trial.request import TrialOrigin
from serving.configuration.config import ServerConfig

_REFERENCES = (TrialOrigin.DEFAULT, TrialOrigin.BASELINE)


class TrialQueue:
    """Adds configurations to a study, and takes the next one from it or from its sampler."""

    def __init__(self, study: optuna.Study):
        self._study = study

    @property
    def is_waiting(self) -> bool:
        """Whether a configuration waits that is measured in any case."""
        return bool(self._study.get_trials(states=(OptunaTrialState.WAITING,), deepcopy=False))

    def enqueue(
        self,
        origin: TrialOrigin,
        config: ServerConfig,
        space: Space,
        retry: bool = False,
        restored: bool = False,
    ) -> None:
        """Add a configuration, which may be outside of the space.

        Args:
            retry: measure it even if it was measured before.
            restored: it is the one of a result that the storage lacks.
        """
        values = space.values(config)
        attributes = {
            "origin": origin,
            "config": config.to_dict(),
            "retry": retry,
            "outside": values is None,
            "restored": restored,
        }
        self._study.enqueue_trial(values or {}, user_attrs=attributes)

    def take(self, space: Space) -> optuna.trial.Trial:
        """Return the next trial: the first that waits, else a point of the sampler."""
        trial = self._study.ask()
        if trial.user_attrs.get("outside", False):
            return trial
        with warnings.catch_warnings():
            # A baseline's values may be outside of the ranges.
            warnings.filterwarnings("ignore", message=".*out of range.*")
            for d in space.dimensions:
                if d.choices:
                    trial.suggest_categorical(d.name, d.choices)
                else:
                    trial.suggest_int(d.name, d.low, d.high, log=d.log)
        return trial

    def put_references_first(self) -> None:
        """Move the references to the front: an interrupted one is at the end."""

        def rank(trial: optuna.trial.FrozenTrial) -> int:
            origin = TrialOrigin(trial.user_attrs["origin"])
            return _REFERENCES.index(origin) if origin in _REFERENCES else len(_REFERENCES)

        waiting = self._study.get_trials(states=(OptunaTrialState.WAITING,), deepcopy=False)
        ordered = sorted(waiting, key=rank)
        if ordered != waiting:
            for trial in ordered:
                params = trial.system_attrs["fixed_params"]
                self._study.enqueue_trial(params, user_attrs=trial.user_attrs)
            for trial in waiting:
                self._discard(trial)

    def discard_incomplete_restoration(self) -> None:
        """Close the trial that a killed driver was restoring; it is restored again."""
        for trial in self._study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            is_incomplete = attributes.get("restored") and "result" not in attributes
            if is_incomplete and not trial.state.is_finished():
                self._discard(trial)

    def _discard(self, trial: optuna.trial.FrozenTrial) -> None:
        self._study._storage.set_trial_state_values(trial._trial_id, OptunaTrialState.FAIL)
